"""A warehouse with buckets in it, and events about them, as a listener would have read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tasks.formats.event import ControlPlaneEvent, Target
from tasks.model import Account, AccountScan, Cloud, Config, Covered, Resource, observe
from tasks.reacting import rereading
from tasks.reacting.rereading import ReadAgain
from tasks.rules import rule
from tasks.warehouse import events, scans
from tasks.warehouse.events import Taken, Work

ACCOUNT = Account(Cloud.AWS, "111122223333", "acme", "org")
RULE = rule("aws_s3_bucket_versioning_enabled")
START = datetime.now(UTC) - timedelta(hours=3)


@dataclass
class Buckets:
    """What a listener does, by hand: scan, take in an event, read again, merge."""

    conn: psycopg.Connection
    account: Account = ACCOUNT

    def bucket(self, name: str, *, bad: bool = True) -> Resource:
        """A bucket whose versions are kept, or where it is bad are not."""
        status = {} if bad else {"Status": "Enabled"}
        return Resource(
            *(Cloud.AWS, ACCOUNT.id, "eu-central-1", RULE.kind, f"arn:aws:s3:::{name}", name),
            Config({"Name": name, "Versioning": status}),
        )

    def scan(self, *resources: Resource, at: datetime = START) -> None:
        """A scan of the whole account."""
        scan_id = scans.begin_scan(self.conn, "test", at=at)
        seen = [observe(RULE, one) for one in resources]
        covered = [Covered("eu-central-1", RULE.kind, ok=True)]
        scans.load_batch(self.conn, scan_id, [AccountScan(ACCOUNT, list(resources), seen, covered)])
        scans.merge_scan(self.conn, scan_id)
        scans.finish_scan(self.conn, scan_id)

    def changed(self, name: str, event: str, at: datetime | None = None) -> Work:
        """An event about a bucket, taken in; the work that it is."""
        when = at or datetime.now(UTC)
        told = ControlPlaneEvent(
            cloud=Cloud.AWS,
            id=event,
            account=ACCOUNT.id,
            operation="s3:PutBucketVersioning",
            at=when,
            actor="arn:aws:iam::111122223333:user/ada",
            source_ip="203.0.113.9",
            original={"eventID": event},
        )
        arn = f"arn:aws:s3:::{name}" if name else ""
        target = Target(Cloud.AWS, ACCOUNT.id, "eu-central-1", RULE.kind, arn)
        events.take_in(self.conn, [Taken(told, [target], "org", when)])
        return Work(target, "org", (event,), when)

    def read(self, work: Work, *found: Resource, at: datetime | None = None) -> ReadAgain:
        """What reading again for a piece of work has shown: nothing, where it is gone."""
        where = [(Covered("eu-central-1", RULE.kind, ok=True), work.target.resource)]
        return ReadAgain(work, ACCOUNT, at or datetime.now(UTC), list(found), where)

    def merge(self, *reads: ReadAgain) -> str:
        """Merge them as the listener does; the last scan's id."""
        for some in rereading.apart(self.conn, reads):
            scan_id = rereading.merge(self.conn, some, {RULE.kind: [RULE]}, "run")
        return scan_id

    def finding(self, name: str) -> dict[str, Any]:
        cursor = self.conn.execute(
            "SELECT * FROM findings WHERE resource = %s", (f"arn:aws:s3:::{name}",)
        )
        (found,) = cursor.fetchall()
        return dict(zip([one.name for one in cursor.description or ()], found, strict=True))


@pytest.fixture
def buckets(conn: psycopg.Connection) -> Buckets:
    return Buckets(conn)
