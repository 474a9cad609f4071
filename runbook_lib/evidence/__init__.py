"""What stays behind: run folders and their events."""
