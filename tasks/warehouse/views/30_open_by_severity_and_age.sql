CREATE VIEW open_by_severity_and_age AS
WITH aged AS (
    SELECT
        cloud,
        severity,
        opened_at,
        CASE
            WHEN opened_at > now() - interval '1 day' THEN 1
            WHEN opened_at > now() - interval '7 days' THEN 2
            WHEN opened_at > now() - interval '30 days' THEN 3
            WHEN opened_at > now() - interval '90 days' THEN 4
            ELSE 5
        END AS age_order
    FROM findings
    WHERE status = 'open'
)
SELECT
    cloud,
    severity,
    array_position(ARRAY['critical', 'high', 'medium', 'low'], severity) AS severity_order,
    (ARRAY['under 1 day', '1 to 7 days', '7 to 30 days', '30 to 90 days', 'over 90 days'])[age_order] AS age,
    age_order,
    count(*) AS findings,
    min(opened_at) AS oldest
FROM aged
GROUP BY cloud, severity, age_order;

COMMENT ON VIEW open_by_severity_and_age IS 'Open findings counted by cloud, severity and how long they have been open';
COMMENT ON COLUMN open_by_severity_and_age.cloud IS 'aws or azure';
COMMENT ON COLUMN open_by_severity_and_age.severity IS 'critical, high, medium or low';
COMMENT ON COLUMN open_by_severity_and_age.severity_order IS '1 for critical to 4 for low: sort by it';
COMMENT ON COLUMN open_by_severity_and_age.age IS 'How long they have been open, in words';
COMMENT ON COLUMN open_by_severity_and_age.age_order IS '1 for the youngest to 5 for the oldest: sort by it';
COMMENT ON COLUMN open_by_severity_and_age.findings IS 'How many';
COMMENT ON COLUMN open_by_severity_and_age.oldest IS 'When the oldest of them was opened';
