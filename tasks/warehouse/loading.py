"""One batch of scanned accounts as rows of the loading dock, in the text form that COPY takes.

Made by hand, not row by row through the driver: a scan's own processes pay for it, millions of
times. An unchanged resource makes no row: its id goes into one array of its account.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from tasks.model import AccountScan, Covered, Resource, Severity, Verdict
from tasks.warehouse.rows import as_json, clean, clean_json

BLOCK = 1 << 18  # characters handed to the driver at once

Known = Mapping[tuple[str, str], Mapping[str, str]]
"""{(cloud, account): {resource id: digest}}, as ``known_digests`` gives it."""

COPY_COVERAGE: LiteralString = (
    "COPY stage_coverage (load_id, region, kind, resource, ok, reason, resources, unchanged) "
    "FROM STDIN"
)
COPY_RESOURCES: LiteralString = (
    "COPY stage_resources (load_id, region, kind, id, name, tags, config, gaps, etag, "
    "fingerprint, digest) FROM STDIN"
)
COPY_OBSERVATIONS: LiteralString = (
    "COPY stage_observations (load_id, finding_id, region, rule, severity, kind, resource, "
    "verdict, reason, detail) FROM STDIN"
)
# The account's row names the load that counts: rows of an earlier load are passed over.
STAGE_ACCOUNT = """
INSERT INTO stage_accounts AS known (
    scan_id, cloud, account, load_id, observed_at, name, source, status, tags, failed, resources,
    unchanged, passed, failed_verdicts, unknown, failed_critical, failed_high, failed_medium,
    failed_low, unchanged_ids, unchanged_digests
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::text[],
        %s::bigint[])
ON CONFLICT (scan_id, cloud, account) DO UPDATE
SET load_id = excluded.load_id, observed_at = excluded.observed_at, failed = excluded.failed,
    resources = excluded.resources, unchanged = excluded.unchanged, passed = excluded.passed,
    failed_verdicts = excluded.failed_verdicts, unknown = excluded.unknown,
    failed_critical = excluded.failed_critical, failed_high = excluded.failed_high,
    failed_medium = excluded.failed_medium, failed_low = excluded.failed_low,
    unchanged_ids = excluded.unchanged_ids, unchanged_digests = excluded.unchanged_digests
"""


@dataclass(slots=True)
class Load:
    """One account's load: what is to be written of it."""

    number: int
    given: AccountScan
    covered: Sequence[tuple[Covered, str]]
    known: Mapping[str, str]
    edition: str
    unchanged: dict[str, int] = field(default_factory=dict)  # id to the beginning of its digest
    resources: int = 0
    verdicts: Counter[tuple[Verdict, Severity | None]] = field(default_factory=Counter)
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    unchanged_places: Counter[tuple[str, str]] = field(default_factory=Counter)


def stage(conn: psycopg.Connection, scan: UUID, at: datetime, loads: Sequence[Load]) -> None:
    """Write the loads of a batch into the loading dock. In the caller's transaction."""
    texts = _Fields()
    usable = [load for load in loads if not load.given.failed]
    _copy(conn, COPY_RESOURCES, (row for load in usable for row in _resources(load, texts)))
    _copy(conn, COPY_OBSERVATIONS, (row for load in usable for row in _observations(load, texts)))
    _copy(conn, COPY_COVERAGE, (row for load in usable for row in _coverage(load, texts)))
    with conn.cursor() as cursor:
        cursor.executemany(STAGE_ACCOUNT, [_account(scan, at, load) for load in loads])


class _Fields(dict[str, str]):
    """Texts as fields of COPY's text form. Most come again and again."""

    def __missing__(self, text: str) -> str:
        value = self[text] = _field(text)
        return value


def _field(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text.replace("\\", "\\\\") if "\\" in text else text
    text = clean(text).replace("\\", "\\\\")
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _json_field(text: str) -> str:
    """Canonical JSON has no control characters of its own, only backslashes before them."""
    text = clean_json(text)
    return text.replace("\\", "\\\\") if "\\" in text else text


def _copy(conn: psycopg.Connection, statement: LiteralString, rows: Iterator[str]) -> None:
    """Rows in blocks: each call of the driver costs more than a row."""
    first = next(rows, None)
    if first is None:
        return
    block, size = [first], len(first)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            block.append(row)
            size += len(row)
            if size > BLOCK:
                copy.write("".join(block))
                block.clear()
                size = 0
        copy.write("".join(block))


def _resources(load: Load, texts: _Fields) -> Iterator[str]:
    known, edition = load.known, load.edition
    covered = {(part.region, part.kind) for part, _ in load.covered if part.ok} if known else set()
    listed = {(part.region, part.kind) for part, _ in load.covered}
    for one in {one.id: one for one in load.given.resources}.values():
        load.resources += 1
        place = _place(one, listed)
        load.places[place] += 1
        parts = one.texts()
        fingerprint = parts.fingerprint
        digest = parts.digest(edition, fingerprint) if edition else ""
        if digest and known.get(one.id) == digest and _is_covered(one, covered):
            load.unchanged[one.id] = int.from_bytes(bytes.fromhex(digest[:16]), signed=True)
            load.unchanged_places[place] += 1
            continue
        yield (
            f"{load.number}\t{texts[one.region]}\t{texts[one.kind]}\t{texts[one.id]}\t"
            f"{_field(one.name)}\t{_json_field(parts.tags)}\t{_json_field(parts.config)}\t"
            f"{_json_field(parts.gaps)}\t{_field(one.etag)}\t{fingerprint}\t{digest}\n"
        )


def _is_covered(one: Resource, covered: set[tuple[str, str]]) -> bool:
    """Only where its place was read without error does coverage speak for it from now on."""
    return any((region, one.kind) in covered for region in (one.region, "global", "*"))


def _place(one: Resource, listed: set[tuple[str, str]]) -> tuple[str, str]:
    """The row of coverage that it is counted in."""
    for region in (one.region, "global", "*"):
        if (region, one.kind) in listed:
            return region, one.kind
    return one.region, one.kind


def _observations(load: Load, texts: _Fields) -> Iterator[str]:
    number, unchanged, verdicts = load.number, load.unchanged, load.verdicts
    passed = 0
    for said in {said.finding_id: said for said in load.given.observations}.values():
        verdict = said.verdict
        if verdict is Verdict.PASS:
            passed += 1
        else:
            verdicts[verdict, said.severity if verdict is Verdict.FAIL else None] += 1
        if said.resource in unchanged:
            continue
        yield (
            f"{number}\t{said.finding_id}\t{texts[said.region]}\t{texts[said.rule]}\t"
            f"{said.severity}\t{texts[said.kind]}\t{texts[said.resource]}\t{verdict}\t"
            f"{texts[said.reason]}\t{texts[said.detail]}\n"
        )
    verdicts[Verdict.PASS, None] += passed


def _coverage(load: Load, texts: _Fields) -> Iterator[str]:
    there = {one.id for one in load.given.resources}
    for part, resource in load.covered:
        place = (part.region, part.kind)
        # A targeted scan covers single resources: one that is there, or one that is gone.
        seen = load.places[place] if not resource else int(resource in there)
        yield (
            f"{load.number}\t{texts[part.region]}\t{texts[part.kind]}\t{texts[resource]}\t"
            f"{'t' if part.ok else 'f'}\t{_field(part.reason)}\t{seen}\t"
            f"{load.unchanged_places[place] if not resource else 0}\n"
        )


def _account(scan: UUID, at: datetime, load: Load) -> tuple[Any, ...]:
    account, counted = load.given.account, load.verdicts
    failed = [counted[Verdict.FAIL, severity] for severity in Severity]
    at -= timedelta(seconds=load.given.lag)
    return (
        *(scan, account.cloud, account.id, load.number, at, clean(account.name), account.source),
        *(account.status, as_json(account.tags), clean(load.given.failed)),
        *(load.resources, len(load.unchanged), counted[Verdict.PASS, None], sum(failed)),
        *(counted[Verdict.UNKNOWN, None], *failed),
        *(list(map(clean, load.unchanged)) or None, list(load.unchanged.values()) or None),
    )
