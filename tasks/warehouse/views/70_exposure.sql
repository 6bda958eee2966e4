-- An event's time is the cloud's own and before anybody read anything, so that it is when exposure
-- began. The event that an opening goes back to is the one whose reading saw it; where a fleet scan
-- was first, the last change of the resource before that, after the finding was last closed.
CREATE VIEW exposure AS
SELECT
    f.cloud,
    f.account,
    f.region,
    f.rule,
    e.severity,
    f.kind,
    f.resource,
    f.id AS finding_id,
    CASE s.trigger WHEN 'event' THEN 'event' ELSE 'scan' END AS found_first_by,
    event.at AS changed_at,
    e.opened_at AS found_at,
    e.closed_at,
    e.resolution,
    event.actor AS changed_by,
    event.source_ip AS changed_from,
    event.operation,
    event.id AS event_id,
    extract(epoch FROM e.opened_at - event.at)::double precision / 60 AS minutes_unseen,
    extract(
        epoch FROM coalesce(e.closed_at, now()) - least(event.at, e.opened_at)
    )::double precision / 60 AS minutes_exposed
FROM finding_episodes e
JOIN findings f ON f.id = e.finding_id
LEFT JOIN scans s ON s.id = e.opened_by_scan
LEFT JOIN LATERAL (
    SELECT max(before.closed_at) AS closed_at
    FROM finding_episodes before
    WHERE before.finding_id = e.finding_id AND before.closed_at <= e.opened_at AND before.id <> e.id
) earlier ON true
LEFT JOIN LATERAL (
    SELECT one.at, one.actor, one.source_ip, one.operation, one.id
    FROM event_targets t
    JOIN events one ON one.cloud = t.cloud AND one.id = t.event_id
    WHERE t.cloud = f.cloud AND t.account = f.account AND t.kind = f.kind
      AND t.resource IN ('', f.resource) AND t.region IN (f.region, 'global')
      AND (
          t.scan_id = e.opened_by_scan
          OR (t.at <= e.opened_at AND t.at > coalesce(earlier.closed_at, '-infinity'))
      )
    ORDER BY (t.scan_id = e.opened_by_scan) DESC NULLS LAST, t.resource = '', t.at DESC, t.event_id
    LIMIT 1
) event ON true;

COMMENT ON VIEW exposure IS 'Each interval in which a finding was open: which of events and scans found it first, by whose change it began, and for how long it was exposed';
COMMENT ON COLUMN exposure.cloud IS 'aws or azure';
COMMENT ON COLUMN exposure.account IS 'AWS account number or Azure subscription id';
COMMENT ON COLUMN exposure.region IS 'Region or location; global for what has none';
COMMENT ON COLUMN exposure.rule IS 'The rule that failed';
COMMENT ON COLUMN exposure.severity IS 'Severity when it was opened';
COMMENT ON COLUMN exposure.kind IS 'Kind of resource';
COMMENT ON COLUMN exposure.resource IS 'The resource''s id';
COMMENT ON COLUMN exposure.finding_id IS 'The finding';
COMMENT ON COLUMN exposure.found_first_by IS 'event: reading its resource again after an event; scan: a scan';
COMMENT ON COLUMN exposure.changed_at IS 'When the change was made that it goes back to; empty where no event told of one';
COMMENT ON COLUMN exposure.found_at IS 'When it was seen open for the first time in this interval';
COMMENT ON COLUMN exposure.closed_at IS 'When it was seen closed; empty while open';
COMMENT ON COLUMN exposure.resolution IS 'pass or resource_gone; empty while open';
COMMENT ON COLUMN exposure.changed_by IS 'Who made the change';
COMMENT ON COLUMN exposure.changed_from IS 'From which address';
COMMENT ON COLUMN exposure.operation IS 'By which call';
COMMENT ON COLUMN exposure.event_id IS 'The event that told of it';
COMMENT ON COLUMN exposure.minutes_unseen IS 'From the change to when it was found';
COMMENT ON COLUMN exposure.minutes_exposed IS 'From the change, or where none is known from when it was found, to its end or to now';
