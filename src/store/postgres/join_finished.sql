-- Rows of chunks that can get no more bins and lie in more than one piece.
-- $1 run, $2 track: what was added to. $3 first: the chunk in which that began. $4 end: one past the last chunk that
-- can get no more bins. The chunk before `first` was in the making until now: what came led past its end.
WITH added AS (
    SELECT run, track, first, "end"
    FROM unnest($1::text[], $2::int4[], $3::int8[], $4::int8[]) AS added (run, track, first, "end")
),
split AS (
    SELECT chunk.run, chunk.track, chunk.chunk
    FROM added
    CROSS JOIN LATERAL (
        SELECT max(before.chunk) AS chunk
        FROM chunk AS before
        WHERE before.run = added.run AND before.track = added.track AND before.chunk < added.first
    ) AS before
    JOIN chunk
        ON chunk.run = added.run
        AND chunk.track = added.track
        AND chunk.chunk >= coalesce(before.chunk, added.first)
        AND chunk.chunk < added."end"
    GROUP BY chunk.run, chunk.track, chunk.chunk
    HAVING count(*) > 1
)
SELECT
    run,
    track,
    chunk,
    chunk.first_bin,
    chunk.n,
    chunk.dtype,
    chunk.row_bytes,
    chunk.bytes
FROM split
JOIN chunk USING (run, track, chunk)
ORDER BY run, track, chunk, chunk.first_bin
