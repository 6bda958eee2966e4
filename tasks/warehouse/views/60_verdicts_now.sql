-- What was said of a resource when it was written last. While it is unchanged nothing new is written:
-- the coverage of its place confirms the old. So each verdict is as good as confirmed_at.
CREATE VIEW verdicts_now AS
WITH read AS (
    SELECT cloud, account, kind, resource,
           CASE WHEN region = '*' THEN 'global' ELSE region END AS region,
           max(observed_at) AS read_at
    FROM scan_coverage
    WHERE ok
    GROUP BY 1, 2, 3, 4, 5
)
SELECT
    r.cloud,
    r.account,
    o.region,
    o.rule,
    o.severity,
    o.kind,
    o.resource,
    o.detail,
    o.verdict,
    o.reason,
    o.observed_at,
    greatest(o.observed_at, place.read_at, everywhere.read_at, alone.read_at) AS confirmed_at,
    o.finding_id
FROM resources r
JOIN observations o
  ON o.cloud = r.cloud AND o.account = r.account AND o.resource = r.id
 AND o.observed_at = r.last_seen_at AND o.scan_id = r.last_scan_id
LEFT JOIN read place
  ON place.cloud = r.cloud AND place.account = r.account AND place.kind = r.kind
 AND place.region = r.region AND place.resource = ''
LEFT JOIN read everywhere
  ON everywhere.cloud = r.cloud AND everywhere.account = r.account
 AND everywhere.kind = r.kind AND everywhere.region = 'global' AND everywhere.resource = ''
LEFT JOIN read alone
  ON alone.cloud = r.cloud AND alone.account = r.account AND alone.kind = r.kind
 AND alone.region = r.region AND alone.resource = r.id
WHERE r.gone_at IS NULL;

COMMENT ON VIEW verdicts_now IS 'What each rule says now of each resource that is there, and when that was last confirmed';
COMMENT ON COLUMN verdicts_now.cloud IS 'aws or azure';
COMMENT ON COLUMN verdicts_now.account IS 'AWS account number or Azure subscription id';
COMMENT ON COLUMN verdicts_now.region IS 'Region or location; global for what has none';
COMMENT ON COLUMN verdicts_now.rule IS 'The rule';
COMMENT ON COLUMN verdicts_now.severity IS 'critical, high, medium or low';
COMMENT ON COLUMN verdicts_now.kind IS 'Kind of resource';
COMMENT ON COLUMN verdicts_now.resource IS 'The resource''s id';
COMMENT ON COLUMN verdicts_now.detail IS 'Which part of the resource, where a rule tells parts apart';
COMMENT ON COLUMN verdicts_now.verdict IS 'pass, fail or unknown';
COMMENT ON COLUMN verdicts_now.reason IS 'Why it is unknown';
COMMENT ON COLUMN verdicts_now.observed_at IS 'Since when at least: as of when the resource was read and judged so';
COMMENT ON COLUMN verdicts_now.confirmed_at IS 'Until when at least: the last time its place was read, the resource being there still and unchanged';
COMMENT ON COLUMN verdicts_now.finding_id IS 'The finding it speaks of, also where there is none';
