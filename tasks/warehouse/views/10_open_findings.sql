CREATE VIEW open_findings AS
SELECT
    f.id,
    f.cloud,
    f.account,
    a.name AS account_name,
    f.region,
    f.rule,
    f.severity,
    f.kind,
    f.resource,
    r.name AS resource_name,
    r.tags AS resource_tags,
    a.tags AS account_tags,
    f.verdict,
    f.opened_at,
    f.last_seen_at,
    f.reopened,
    extract(day FROM now() - f.opened_at)::integer AS age_days,
    EXISTS (
        SELECT 1
        FROM exceptions e
        WHERE (e.expires_at IS NULL OR e.expires_at > now())
          AND (e.finding_id IS NULL OR e.finding_id = f.id)
          AND (e.rule IS NULL OR e.rule = f.rule)
          AND (e.cloud IS NULL OR e.cloud = f.cloud)
          AND (e.account IS NULL OR e.account = f.account)
    ) AS excepted
FROM findings f
LEFT JOIN accounts a ON a.cloud = f.cloud AND a.id = f.account
LEFT JOIN resources r ON r.cloud = f.cloud AND r.account = f.account AND r.id = f.resource
WHERE f.status = 'open';

COMMENT ON VIEW open_findings IS 'Findings open now, with the names and tags of account and resource';
COMMENT ON COLUMN open_findings.id IS 'The finding';
COMMENT ON COLUMN open_findings.cloud IS 'aws or azure';
COMMENT ON COLUMN open_findings.account IS 'AWS account number or Azure subscription id';
COMMENT ON COLUMN open_findings.account_name IS 'The account''s name';
COMMENT ON COLUMN open_findings.region IS 'Region or location; global for what has none';
COMMENT ON COLUMN open_findings.rule IS 'The rule that fails';
COMMENT ON COLUMN open_findings.severity IS 'critical, high, medium or low';
COMMENT ON COLUMN open_findings.kind IS 'Kind of resource';
COMMENT ON COLUMN open_findings.resource IS 'The resource''s id';
COMMENT ON COLUMN open_findings.resource_name IS 'The resource''s name';
COMMENT ON COLUMN open_findings.resource_tags IS 'Tags of the resource';
COMMENT ON COLUMN open_findings.account_tags IS 'Tags of the account';
COMMENT ON COLUMN open_findings.verdict IS 'The last observation: fail, or unknown where it could not be judged again';
COMMENT ON COLUMN open_findings.opened_at IS 'When it was opened, the last time';
COMMENT ON COLUMN open_findings.last_seen_at IS 'When it was last seen failing';
COMMENT ON COLUMN open_findings.reopened IS 'How often it came back';
COMMENT ON COLUMN open_findings.age_days IS 'Whole days since it was opened';
COMMENT ON COLUMN open_findings.excepted IS 'An exception that has not expired accepts it';
