"""Is a DMS migration complete and safe to cut over? What `rb.dms` answers."""
