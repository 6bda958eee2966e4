-- Episodes, not findings: one that was closed twice took two times. A resource that went away was
-- not remediated and has a row of its own.
CREATE VIEW time_to_remediate AS
SELECT
    f.cloud,
    f.rule,
    e.severity,
    e.resolution,
    date_trunc('month', e.closed_at AT TIME ZONE 'UTC')::date AS month,
    count(*) AS closed,
    avg(e.closed_at - e.opened_at) AS mean,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY e.closed_at - e.opened_at) AS median,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY e.closed_at - e.opened_at) AS ninetieth
FROM finding_episodes e
JOIN findings f ON f.id = e.finding_id
WHERE e.closed_at IS NOT NULL
GROUP BY f.cloud, f.rule, e.severity, e.resolution, month;

COMMENT ON VIEW time_to_remediate IS 'How long findings stayed open, by rule, severity and the month in which they were closed';
COMMENT ON COLUMN time_to_remediate.cloud IS 'aws or azure';
COMMENT ON COLUMN time_to_remediate.rule IS 'The rule';
COMMENT ON COLUMN time_to_remediate.severity IS 'Severity when it was opened';
COMMENT ON COLUMN time_to_remediate.resolution IS 'pass (it was fixed) or resource_gone';
COMMENT ON COLUMN time_to_remediate.month IS 'First day of the month in which it was closed, in UTC';
COMMENT ON COLUMN time_to_remediate.closed IS 'How many were closed';
COMMENT ON COLUMN time_to_remediate.mean IS 'Mean time open';
COMMENT ON COLUMN time_to_remediate.median IS 'Half took no longer than this';
COMMENT ON COLUMN time_to_remediate.ninetieth IS 'Nine of ten took no longer than this';
