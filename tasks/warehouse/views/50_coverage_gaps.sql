-- What the newest fleet scan that was merged did not see: no finding there is not "all well there".
CREATE VIEW coverage_gaps AS
WITH newest AS (
    SELECT id
    FROM scans
    WHERE NOT targeted AND merged_at IS NOT NULL
    ORDER BY started_at DESC
    LIMIT 1
)
SELECT sa.scan_id, sa.cloud, sa.account, a.name AS account_name,
       NULL::text AS region, NULL::text AS kind, sa.status AS gap, sa.reason,
       a.last_scanned_at
FROM scan_accounts sa
JOIN newest ON newest.id = sa.scan_id
LEFT JOIN accounts a ON a.cloud = sa.cloud AND a.id = sa.account
WHERE sa.status <> 'covered'
UNION ALL
SELECT sc.scan_id, sc.cloud, sc.account, a.name, sc.region, sc.kind, 'unread', sc.reason,
       a.last_scanned_at
FROM scan_coverage sc
JOIN newest ON newest.id = sc.scan_id
LEFT JOIN accounts a ON a.cloud = sc.cloud AND a.id = sc.account
WHERE NOT sc.ok;

COMMENT ON VIEW coverage_gaps IS 'Accounts, and kinds of resource in a region, that the newest fleet scan could not read, and why';
COMMENT ON COLUMN coverage_gaps.scan_id IS 'The newest merged fleet scan';
COMMENT ON COLUMN coverage_gaps.cloud IS 'aws or azure';
COMMENT ON COLUMN coverage_gaps.account IS 'AWS account number or Azure subscription id';
COMMENT ON COLUMN coverage_gaps.account_name IS 'The account''s name';
COMMENT ON COLUMN coverage_gaps.region IS 'Region or location; empty for the whole account';
COMMENT ON COLUMN coverage_gaps.kind IS 'Kind of resource; empty for the whole account';
COMMENT ON COLUMN coverage_gaps.gap IS 'pending, failed or skipped (the account), or unread (a kind in a region)';
COMMENT ON COLUMN coverage_gaps.reason IS 'Why';
COMMENT ON COLUMN coverage_gaps.last_scanned_at IS 'When the account was last read with success';
