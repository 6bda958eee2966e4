-- One row per account and day: the day's last fleet scan that reached a verdict on the account,
-- or its failure where none did.
CREATE VIEW posture_by_account_and_day AS
SELECT DISTINCT ON (sa.cloud, sa.account, (s.started_at AT TIME ZONE 'UTC')::date)
    (s.started_at AT TIME ZONE 'UTC')::date AS day,
    sa.cloud,
    sa.account,
    a.name AS account_name,
    sa.status,
    sa.reason,
    sa.resources,
    sa.passed,
    sa.failed,
    sa.unknown,
    sa.failed_critical,
    sa.failed_high,
    sa.failed_medium,
    sa.failed_low,
    round(100.0 * sa.passed / nullif(sa.passed + sa.failed, 0), 1) AS percent_passed,
    sa.scan_id
FROM scan_accounts sa
JOIN scans s ON s.id = sa.scan_id
LEFT JOIN accounts a ON a.cloud = sa.cloud AND a.id = sa.account
WHERE NOT s.targeted AND sa.status <> 'pending'
ORDER BY
    sa.cloud,
    sa.account,
    (s.started_at AT TIME ZONE 'UTC')::date,
    (sa.status = 'covered') DESC,
    s.started_at DESC;

COMMENT ON VIEW posture_by_account_and_day IS 'How each account stood on each day (UTC): its last covered fleet scan, or why there was none';
COMMENT ON COLUMN posture_by_account_and_day.day IS 'The day, in UTC';
COMMENT ON COLUMN posture_by_account_and_day.cloud IS 'aws or azure';
COMMENT ON COLUMN posture_by_account_and_day.account IS 'AWS account number or Azure subscription id';
COMMENT ON COLUMN posture_by_account_and_day.account_name IS 'The account''s name';
COMMENT ON COLUMN posture_by_account_and_day.status IS 'covered, failed or skipped';
COMMENT ON COLUMN posture_by_account_and_day.reason IS 'Why it failed or was skipped';
COMMENT ON COLUMN posture_by_account_and_day.resources IS 'Resources seen';
COMMENT ON COLUMN posture_by_account_and_day.passed IS 'Verdicts pass';
COMMENT ON COLUMN posture_by_account_and_day.failed IS 'Verdicts fail';
COMMENT ON COLUMN posture_by_account_and_day.unknown IS 'Verdicts unknown';
COMMENT ON COLUMN posture_by_account_and_day.failed_critical IS 'Verdicts fail of critical severity';
COMMENT ON COLUMN posture_by_account_and_day.failed_high IS 'Verdicts fail of high severity';
COMMENT ON COLUMN posture_by_account_and_day.failed_medium IS 'Verdicts fail of medium severity';
COMMENT ON COLUMN posture_by_account_and_day.failed_low IS 'Verdicts fail of low severity';
COMMENT ON COLUMN posture_by_account_and_day.percent_passed IS 'Passed among passed and failed; unknown counts as neither';
COMMENT ON COLUMN posture_by_account_and_day.scan_id IS 'The scan it is drawn from';
