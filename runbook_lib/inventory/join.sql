-- Which entries differ between two inventories, `source` and `other`? For DuckDB, Athena and Spark alike.
--
-- Both are tables over the Parquet files of an inventory. One row for each key that differs; a value is compared where
-- both sides have it. Beside `runbook compare-files` this knows no filters, no second look, and no other spellings of
-- a name: those show as missing and extra. A key too long for S3, and what lies below an unreadable folder, are missing
-- here; that a value was not recorded, or that a file has no checksum to compare, is not told. Above some 100 million entries, join range by range of `key`.
SELECT * FROM (
    SELECT
        COALESCE(s.key, o.key) AS key,
        COALESCE(s.kind, o.kind) AS kind,
        CASE
            WHEN s.problem IS NOT NULL OR o.problem IS NOT NULL THEN
                CASE
                    WHEN COALESCE(s.problem, o.problem) LIKE 'not UTF-8%' OR COALESCE(s.problem, o.problem) LIKE 'target not UTF-8%' THEN 'not UTF-8'
                    WHEN COALESCE(s.problem, o.problem) LIKE 'changed while looking%' THEN 'changed while looking'
                    ELSE 'unreadable'
                END
            WHEN s.kind = 'other' AND (o.key IS NULL OR o.kind = 'other') THEN 'special'
            WHEN o.key IS NULL THEN 'missing'
            WHEN s.key IS NULL THEN 'extra'
            -- only a HEAD tells that an object is a link: without it, nothing knows its mode
            WHEN s.kind <> o.kind AND NOT (s.kind = 'link' AND o.kind = 'file' AND o.mode IS NULL) THEN 'kind'
            ELSE CONCAT_WS(', ',
                CASE WHEN s.kind <> 'folder' AND s.size <> o.size THEN 'size' END,
                -- microseconds; two seconds for clocks that differ, and for S3's whole seconds
                CASE WHEN s.kind = 'file' AND o.mtime_ns IS NULL AND s.mtime_ns > (o.last_modified_us + 2000000) * 1000
                    THEN 'stale' END,
                -- at the coarser step of the two sides; the remainder is made positive for times before 1970
                CASE WHEN s.mtime_ns - (s.mtime_ns % GREATEST(COALESCE(s.mtime_step_ns, 1), COALESCE(o.mtime_step_ns, 1)) + GREATEST(COALESCE(s.mtime_step_ns, 1), COALESCE(o.mtime_step_ns, 1))) % GREATEST(COALESCE(s.mtime_step_ns, 1), COALESCE(o.mtime_step_ns, 1))
                    <> o.mtime_ns - (o.mtime_ns % GREATEST(COALESCE(s.mtime_step_ns, 1), COALESCE(o.mtime_step_ns, 1)) + GREATEST(COALESCE(s.mtime_step_ns, 1), COALESCE(o.mtime_step_ns, 1))) % GREATEST(COALESCE(s.mtime_step_ns, 1), COALESCE(o.mtime_step_ns, 1)) THEN 'mtime' END,
                CASE WHEN s.kind <> 'link' AND s.mode <> o.mode THEN 'mode' END,
                CASE WHEN s.uid <> o.uid THEN 'owner' END,
                CASE WHEN s.gid <> o.gid THEN 'group' END,
                CASE WHEN s.kind = 'link' AND s.target <> o.target THEN 'link target' END,
                CASE WHEN s.kind = 'file' AND s.size = o.size AND s.checksum_algorithm = o.checksum_algorithm
                    AND s.checksum_type = o.checksum_type AND s.checksum <> o.checksum THEN 'content' END
            )
        END AS differences,
        s.size AS source_bytes,
        o.size AS other_bytes
    FROM source s FULL OUTER JOIN other o ON s.key = o.key
    -- what may differ at all, which is cheap to see; how, is told of these rows only
    WHERE s.key IS NULL OR o.key IS NULL OR s.problem IS NOT NULL OR o.problem IS NOT NULL OR s.kind = 'other'
        OR s.kind <> o.kind OR s.size <> o.size OR s.mode <> o.mode OR s.uid <> o.uid OR s.gid <> o.gid
        OR s.target <> o.target OR s.checksum <> o.checksum OR s.mtime_ns <> o.mtime_ns
        OR (o.mtime_ns IS NULL AND s.mtime_ns > (o.last_modified_us + 2000000) * 1000)
) compared
WHERE differences <> '' AND key <> '.aws-datasync-metadata'
