"""An entry's hash tells whose it is apart from what it says: evidence can show that it is whole.

See tasks/audit.py, version 3. Entries that are there keep their version and their hash.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(AUDIT_APPEND)
    op.execute("COMMENT ON COLUMN public.audit_log.version IS 'How its hash is made: 1, 2 or 3'")


# As in 0001, but for how the body is hashed.
AUDIT_APPEND = """
CREATE OR REPLACE FUNCTION public.audit_append(
    its_actor text, its_action text, its_subject text, its_details text
) RETURNS public.audit_log
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head public.audit_head;
    entry public.audit_log;
    whose text;
    said text;
BEGIN
    SELECT * INTO STRICT head FROM public.audit_head FOR UPDATE;
    entry.number := head.number + 1;
    entry.at := clock_timestamp();
    entry.actor := its_actor;
    entry.action := its_action;
    entry.subject := its_subject;
    entry.details := its_details::json;
    entry.prev_hash := head.hash;
    entry.version := 3;
    entry.salt := replace(gen_random_uuid()::text, '-', '');
    whose := its_subject;
    IF its_subject !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        whose := entry.salt || its_subject;
    END IF;
    SELECT string_agg(encode(sha256(convert_to(part, 'UTF8')), 'hex'), E'\\n' ORDER BY place)
    INTO said
    FROM unnest(ARRAY[
        entry.salt,
        to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        its_actor, its_action, its_details
    ]) WITH ORDINALITY AS parts (part, place);
    entry.hash := encode(sha256(convert_to(
        head.hash || E'\\n' || entry.number || E'\\n' || encode(sha256(convert_to(
            encode(sha256(convert_to(whose, 'UTF8')), 'hex') || E'\\n'
            || encode(sha256(convert_to(said, 'UTF8')), 'hex'), 'UTF8')), 'hex'),
        'UTF8')), 'hex');
    INSERT INTO public.audit_log (number, at, actor, action, subject, details, prev_hash, hash,
                                  version, salt)
    VALUES (entry.number, entry.at, entry.actor, entry.action, entry.subject, entry.details,
            entry.prev_hash, entry.hash, entry.version, entry.salt);
    UPDATE public.audit_head SET number = entry.number, hash = entry.hash;
    RETURN entry;
END
$$
"""
