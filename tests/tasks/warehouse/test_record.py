"""The record against the application's own role: it adds and changes nothing, whatever it tries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from unittest import mock
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.local.postgres import OWNER, EmbeddedPostgres
from tasks.audit import entry_hash, first_broken, next_entry
from tasks.errors import BadInput
from tasks.model import Cloud, Config, Resource, sha256
from tasks.warehouse import audit, database, record, remediations, views
from tasks.warehouse.database import OWNER_VARIABLE, VARIABLE

NUMBERS = count(1)
REMEDIATION = uuid4()


def bucket(**parts: object) -> Resource:
    return Resource(
        *(Cloud.AWS, "111122223333", "eu-central-1", "aws.s3.bucket", "arn:aws:s3:::b", "b"),
        Config({"zeta": 1, "alpha": {"b": [1], "a": None}, **parts}),
    )


@pytest.fixture
def recorded(conn: psycopg.Connection) -> psycopg.Connection:
    """The application's connection to a warehouse with a log of three and a snapshot."""
    for number in range(3):
        audit.append(conn, "ann", "approved", f"remediation {number}", {"n": number})
    remediations.add_snapshot(conn, REMEDIATION, "before", bucket())
    return conn


def everything(conn: psycopg.Connection) -> list[object]:
    tables = ("audit_log", "audit_head", "snapshots", "snapshot_contents")
    return [conn.execute(f"SELECT t::text FROM {table} t".encode()).fetchall() for table in tables]


ATTACKS = [
    "UPDATE audit_log SET actor = 'eve'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "INSERT INTO audit_log SELECT 4, at, 'eve', action, subject, details, hash, hash, 1, '' "
    "FROM audit_log WHERE number = 3",
    "MERGE INTO audit_log USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "COPY audit_log FROM PROGRAM 'true'",
    "UPDATE audit_head SET number = 0",
    "DELETE FROM audit_head",
    "TRUNCATE audit_head, audit_log CASCADE",
    "SELECT * FROM audit_head FOR UPDATE",
    "DO 'BEGIN LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE; END'",
    "UPDATE snapshots SET stage = 'after'",
    "DELETE FROM snapshots",
    "TRUNCATE snapshots",
    "UPDATE snapshot_contents SET content = '{}'",
    "INSERT INTO snapshot_contents (hash, content, config) SELECT hash, content, config "
    "FROM snapshot_contents ON CONFLICT (hash) DO UPDATE SET config = '{}'",
    "DELETE FROM snapshot_contents",
    "DROP TABLE audit_log",
    "DROP TABLE snapshot_contents CASCADE",
    "DROP OWNED BY suture_owner",
    "REASSIGN OWNED BY suture_owner TO suture",
    "DROP SCHEMA public CASCADE",
    "ALTER SCHEMA public RENAME TO old",
    "CREATE SCHEMA suture",  # would come before public for this role
    "ALTER TABLE audit_log RENAME TO old",
    "ALTER TABLE audit_log OWNER TO suture",
    "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    "ALTER TABLE audit_log DROP COLUMN actor",
    "ALTER TABLE audit_log ALTER COLUMN hash SET DEFAULT ''",
    "ALTER TABLE audit_log SET UNLOGGED",
    "ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey",
    "ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY none ON audit_log USING (false)",
    "CREATE RULE none AS ON INSERT TO audit_log DO INSTEAD NOTHING",
    "CREATE TRIGGER mine BEFORE INSERT ON audit_log EXECUTE FUNCTION record_is_append_only()",
    "CREATE INDEX ON audit_log (lower(actor))",
    "CREATE TABLE child () INHERITS (audit_log)",
    "CREATE TABLE mine (hash text REFERENCES snapshot_contents)",
    "CREATE PUBLICATION mine FOR TABLE audit_log",
    "COMMENT ON TABLE audit_log IS 'nothing'",
    "DROP TRIGGER append_only ON audit_log",
    "DROP FUNCTION audit_append",
    "ALTER FUNCTION audit_append RENAME TO old",
    "ALTER FUNCTION audit_append SECURITY INVOKER",
    "ALTER FUNCTION audit_append SET search_path = suture",
    "CREATE OR REPLACE FUNCTION audit_append(its_actor text, its_action text, its_subject text, "
    "its_details text) RETURNS audit_log LANGUAGE sql AS 'SELECT NULL::audit_log'",
    "CREATE OR REPLACE FUNCTION record_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NULL; END'",
    "GRANT UPDATE, DELETE ON audit_log TO suture; DELETE FROM audit_log",  # a warning, and then
    "GRANT SET ON PARAMETER session_replication_role TO suture",
    "GRANT suture_owner TO suture",
    "GRANT suture_owner TO suture WITH ADMIN OPTION",
    "CREATE ROLE helper ROLE suture IN ROLE suture_owner",
    "SET ROLE suture_owner",
    "SET SESSION AUTHORIZATION suture_owner",
    "ALTER ROLE suture_owner PASSWORD 'mine'",
    "ALTER ROLE suture_owner SET search_path = public",
    "ALTER ROLE suture SUPERUSER",
    "ALTER ROLE suture BYPASSRLS",
    "CREATE ROLE root SUPERUSER",
    "GRANT pg_write_all_data TO suture",
    "GRANT pg_execute_server_program TO suture",
    "DROP ROLE suture_owner",
    "SET session_replication_role = replica",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION record_is_append_only()",
    "UPDATE pg_class SET relowner = (SELECT oid FROM pg_roles WHERE rolname = 'suture')",
    "UPDATE record_version SET version_num = '0'",
]


@pytest.mark.attack
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_applications_role_cannot(recorded: psycopg.Connection, attack: str) -> None:
    before = everything(recorded)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        recorded.execute(attack.encode())
    assert everything(recorded) == before
    assert audit.verify_chain(recorded) is None


@pytest.mark.attack
def test_the_applications_role_cannot_drop_or_rename_the_database(
    recorded: psycopg.Connection, postgres: EmbeddedPostgres
) -> None:
    name = recorded.info.dbname
    with database.connect(postgres.url("template_warehouse")) as elsewhere:
        for attack in ("DROP DATABASE {}", "ALTER DATABASE {} RENAME TO old"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                elsewhere.execute(attack.format(name).encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            elsewhere.execute(f"ALTER DATABASE {name} SET search_path = mine".encode())


@pytest.mark.attack
def test_what_the_applications_role_plants_is_not_run_by_the_owner(
    recorded: psycopg.Connection, postgres: EmbeddedPostgres
) -> None:
    """At the next upgrade the owner comes: no operator, trigger or default of ours meets it."""
    recorded.execute(
        """
        CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN GRANT ALL ON public.audit_log TO suture; RETURN NEW; END';
        CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON alembic_version
        EXECUTE FUNCTION trap();
        CREATE FUNCTION equal(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN GRANT ALL ON public.audit_log TO suture; RETURN true; END';
        CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = equal);
        CREATE FUNCTION sha256(text) RETURNS bytea LANGUAGE plpgsql AS
        'BEGIN GRANT ALL ON public.audit_log TO suture; RETURN NULL; END';
        """
    )
    name = recorded.info.dbname
    database.upgrade(postgres.url(name), postgres.url(name, OWNER))
    audit.append(recorded, "ann", "approved", "again")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        recorded.execute("DELETE FROM audit_log")
    assert audit.verify_chain(recorded) is None


@pytest.mark.attack
def test_a_table_that_poses_as_kept_from_before_is_not_carried_over(
    recorded: psycopg.Connection, postgres: EmbeddedPostgres
) -> None:
    for table in ("audit_log", "audit_head", "snapshots"):
        recorded.execute(f"CREATE TABLE kept_{table} AS TABLE {table}".encode())
    before = everything(recorded)
    name = recorded.info.dbname
    database.upgrade(postgres.url(name), postgres.url(name, OWNER))
    assert everything(recorded) == before


@pytest.mark.attack
def test_a_temporary_table_of_the_same_name_is_not_read_instead(
    recorded: psycopg.Connection,
) -> None:
    recorded.execute("CREATE TEMP TABLE audit_log AS TABLE public.audit_log")
    recorded.execute("CREATE TEMP TABLE audit_head AS TABLE public.audit_head")
    recorded.execute("UPDATE audit_log SET actor = 'eve'")
    audit.append(recorded, "ann", "did", "it")
    assert {one.actor for one in audit.entries(recorded)} == {"ann"}
    assert audit.head(recorded) is not None
    assert audit.verify_chain(recorded) is None


@pytest.mark.attack
def test_a_content_cannot_be_stored_under_a_hash_that_is_not_its_own(
    recorded: psycopg.Connection,
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        recorded.execute(
            "INSERT INTO snapshot_contents (hash, content, config) VALUES (%s, '{}', '{}')",
            (sha256("something else"),),
        )


def test_the_owner_itself_has_to_take_a_trigger_away_first(
    recorded: psycopg.Connection, postgres: EmbeddedPostgres
) -> None:
    with database.connect(postgres.url(recorded.info.dbname, OWNER)) as owner:
        for table in ("audit_log", "snapshots", "snapshot_contents"):
            for attack in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
                with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                    owner.execute(attack.encode())


# --- the chain as the database makes it ---------------------------------------------------------

SAID = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
DETAILS = st.dictionaries(SAID, SAID | st.integers() | FINITE)
SAYINGS = st.lists(st.tuples(SAID, SAID, SAID, DETAILS), min_size=1, max_size=4)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SAYINGS)
def test_the_database_hashes_as_we_do(conn: psycopg.Connection, said: list[object]) -> None:
    before = list(audit.entries(conn))
    entries = [audit.append(conn, *one) for one in said]  # type: ignore[misc]
    for entry in entries:
        assert entry.hash == entry_hash(entry)
        assert len(entry.salt) == 32
    start = before[-1] if before else None
    assert first_broken(entries, audit.head(conn), start=start) is None


# --- before the record had an owner -------------------------------------------------------------


# The remediation that it belongs to is not needed for this: its foreign key goes.
OLD_SNAPSHOT = """
ALTER TABLE snapshots DROP CONSTRAINT snapshots_remediation_id_fkey;
INSERT INTO snapshots (remediation_id, stage, taken_at, cloud, account, region, kind, resource,
                       name, tags, config, gaps, fingerprint)
VALUES ('%s', 'before', '%s', 'aws', '111122223333', 'eu-central-1', 'aws.s3.bucket',
        'arn:aws:s3:::b', 'b', '{}', '%s', '{}', '')
"""
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def old(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A warehouse as version 0003 left it: the application owns all, the log and snapshots too."""
    name = f"old_{next(NUMBERS)}"
    postgres.create_database(name)
    url = postgres.url(name)
    with mock.patch.object(views, "create_views"):  # today's read what came later
        database._migrate(database.TABLES, url, revision="0003")
    last = None
    with database.connect(url) as conn:
        for number in range(3):
            entry = next_entry(
                last, at=AT, actor="ann", action="did", subject=str(number), details={}, version=1
            )
            last = (entry.number, entry.hash)
            conn.execute(
                "INSERT INTO audit_log VALUES (%s, %s, %s, %s, %s, %s::json, %s, %s)",
                (
                    *(entry.number, entry.at, entry.actor, entry.action, entry.subject),
                    *(entry.details, entry.prev_hash, entry.hash),
                ),
            )
        conn.execute("INSERT INTO audit_head (number, hash) VALUES (%s, %s)", last)
        config = json.dumps(bucket().config.as_dict())
        conn.execute((OLD_SNAPSHOT % (REMEDIATION, AT, config)).encode())
    yield url
    postgres.drop_database(name)


def test_a_log_goes_on_in_another_version_after_an_upgrade(postgres: EmbeddedPostgres) -> None:
    name = f"earlier_{next(NUMBERS)}"
    postgres.create_warehouse(name)
    url, owner_url = postgres.url(name), postgres.url(name, OWNER)
    with database.connect(url) as conn, database.connect(owner_url) as owner:
        role = record.admit(conn, owner, VARIABLE, OWNER_VARIABLE)
        database._migrate(database.TABLES, url)
        database._migrate(database.RECORD, owner_url, search_path="pg_catalog", revision="0001")
        record.grant(owner, role)
        earlier = audit.append(conn, "ann", "did", "policy x")
        assert not record.is_laid(conn, "0002")
    database.upgrade(url, owner_url)
    with database.connect(url) as conn:
        for subject in ("policy x", f"{REMEDIATION}", f"{REMEDIATION}\n", "é\n" * 9, ""):
            later = audit.append(conn, "ann", "did", subject, {"é": [1.5, None]})
            assert later.hash == entry_hash(later)
        assert (earlier.version, later.version) == (2, 3)
        assert audit.verify_chain(conn) is None
    postgres.drop_database(name)


def test_what_was_recorded_before_is_carried_over_as_it_was(
    old: str, postgres: EmbeddedPostgres
) -> None:
    name = old.rpartition("/")[2]
    owner = postgres.url(name, OWNER)
    with pytest.raises(BadInput, match="suture owns the database") as caught:
        database.upgrade(old, owner)
    assert (caught.value.field, caught.value.fix) == (
        VARIABLE,
        f"Let an administrator run: ALTER DATABASE {name} OWNER TO suture_owner;",
    )
    postgres.create_warehouse(name)  # does just that
    for _ in range(2):
        database.upgrade(old, owner)
    with database.connect(old) as conn:
        assert [one.version for one in audit.entries(conn)] == [1, 1, 1]
        audit.append(conn, "ann", "did", "more")
        assert audit.verify_chain(conn) is None
        (kept,) = remediations.snapshots(conn, str(REMEDIATION))
        assert (kept.stage, kept.taken_at, kept.resource) == ("before", AT, bucket())
        assert list(kept.resource.config) == ["zeta", "alpha"]
        for attack in (
            "INSERT INTO audit_log SELECT * FROM audit_log",
            "UPDATE audit_head SET number = 0",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(attack.encode())
        left = conn.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'kept_%'").fetchone()
        assert left == (0,)


# --- who may be whom ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "problem", "field"),
    [
        (
            ("suture_owner", "suture_owner"),
            "suture_owner is, or can become, suture_owner",
            VARIABLE,
        ),
        (("postgres", OWNER), "postgres is a superuser", VARIABLE),
        (("suture", "suture"), "suture is, or can become, suture", VARIABLE),
    ],
)
@pytest.mark.attack
def test_roles_that_are_not_apart_are_refused(
    conn: psycopg.Connection,
    postgres: EmbeddedPostgres,
    roles: tuple[str, str],
    problem: str,
    field: str,
) -> None:
    urls = [postgres.url(conn.info.dbname, role) for role in roles]
    with pytest.raises(BadInput, match=problem) as caught:
        database.upgrade(*urls)
    assert caught.value.field == field


def test_the_owner_of_another_database_is_refused(
    conn: psycopg.Connection, postgres: EmbeddedPostgres
) -> None:
    with pytest.raises(BadInput, match=f"{OWNER_VARIABLE}: is not the database of {VARIABLE}"):
        database.upgrade(postgres.url(conn.info.dbname), postgres.url("template_warehouse", OWNER))


def test_an_owner_is_asked_for_only_where_it_is_needed(
    conn: psycopg.Connection, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.upgrade(postgres.url(conn.info.dbname))  # all is there
    name = f"empty_{next(NUMBERS)}"
    postgres.create_warehouse(name)
    try:
        with pytest.raises(BadInput, match=f"{OWNER_VARIABLE}: is not set"):
            database.upgrade(postgres.url(name))
        monkeypatch.setenv(OWNER_VARIABLE, postgres.url(name, OWNER))
        database.upgrade(postgres.url(name))
        with database.connect(postgres.url(name)) as made:
            audit.append(made, "ann", "did", "it")
    finally:
        postgres.drop_database(name)


def test_several_upgrades_at_once_are_one(old: str, postgres: EmbeddedPostgres) -> None:
    name = old.rpartition("/")[2]
    postgres.create_warehouse(name)

    def upgrade(_: int) -> None:
        database.upgrade(old, postgres.url(name, OWNER))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(upgrade, range(3)))
    with database.connect(old) as conn:
        assert [one.number for one in audit.entries(conn)] == [1, 2, 3]
        assert len(remediations.snapshots(conn, str(REMEDIATION))) == 1


# --- snapshots ----------------------------------------------------------------------------------


def test_one_content_is_stored_once_and_given_back_in_the_order_it_came(
    conn: psycopg.Connection,
) -> None:
    other_way = bucket()
    turned = Config({"alpha": {"a": None, "b": [1]}, "zeta": 1})
    other_way = replace(other_way, config=turned)
    for one in (bucket(), other_way, bucket(), bucket(more=True)):
        remediations.add_snapshot(conn, REMEDIATION, "during", one)
    taken = remediations.snapshots(conn, str(REMEDIATION))
    assert [list(one.resource.config) for one in taken[:3]] == [
        ["zeta", "alpha"],
        ["alpha", "zeta"],
        ["zeta", "alpha"],
    ]
    assert list(taken[1].resource.config["alpha"]) == ["a", "b"]
    assert len({one.address for one in taken[:3]}) == 1
    assert conn.execute("SELECT count(*) FROM snapshot_contents").fetchone() == (2,)
    assert conn.execute("SELECT count(config) FROM snapshots").fetchone() == (1,)
    for one in taken:
        assert sha256(one.content) == one.address
