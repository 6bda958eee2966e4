"""The fifty calls that a scan of one account makes, bare: signed by hand, nothing evaluated.

Both floors send exactly these, in the order in which each depends on the one before; they differ
in the HTTP client only. Signing is AWS's Signature Version 4.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from contender import Job, Outcome

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
FORM = "application/x-www-form-urlencoded; charset=utf-8"
BUCKET_PARTS = ("publicAccessBlock", "versioning", "policy", "tagging")
NOT_SET = 404  # a bucket without a policy answers so, and so does an account without its own

_KEYS = re.compile(
    rb"<AccessKeyId>([^<]+)</AccessKeyId>|<SecretAccessKey>([^<]+)</SecretAccessKey>"
    rb"|<SessionToken>([^<]+)</SessionToken>"
)
_BUCKET = re.compile(rb"<Bucket>(.*?)</Bucket>", re.DOTALL)
_NAME = re.compile(rb"<Name>([^<]+)</Name>")
_REGION = re.compile(rb"<BucketRegion>([^<]+)</BucketRegion>")
_LOCATION = re.compile(rb"<LocationConstraint[^>]*>([^<]+)</LocationConstraint>")


@dataclass(slots=True)
class Keys:
    """What signs a request. The signing key of a service, region and day is kept."""

    access_key: str
    secret_key: str
    token: str = ""
    derived: dict[tuple[str, str, str], bytes] = field(default_factory=dict)

    def signing_key(self, day: str, region: str, service: str) -> bytes:
        known = self.derived.get((day, region, service))
        if known is None:
            known = f"AWS4{self.secret_key}".encode()
            for part in (day, region, service, "aws4_request"):
                known = hmac.digest(known, part.encode(), "sha256")
            self.derived[day, region, service] = known
        return known


class Signer:
    """Signs requests to one host."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._now = (0, "", "")

    def headers(
        self,
        keys: Keys,
        service: str,
        region: str,
        method: str,
        path: str,
        query: str,
        body: bytes,
    ) -> dict[str, str]:
        """The headers of one request, Host left out. ``query`` is in canonical form already."""
        second = int(time.time())
        if second != self._now[0]:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._now = (second, stamp, stamp[:8])
        _, stamp, day = self._now
        digest = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
        sent = {"X-Amz-Date": stamp}
        canonical, signed = f"host:{self._host}\n", "host"
        if body:
            sent["Content-Type"] = FORM
            canonical, signed = f"content-type:{FORM}\n{canonical}", "content-type;host"
        if service == "s3":
            sent["X-Amz-Content-SHA256"] = digest
            canonical += f"x-amz-content-sha256:{digest}\n"
            signed += ";x-amz-content-sha256"
        canonical += f"x-amz-date:{stamp}\n"
        signed += ";x-amz-date"
        if keys.token:
            sent["X-Amz-Security-Token"] = keys.token
            canonical += f"x-amz-security-token:{keys.token}\n"
            signed += ";x-amz-security-token"
        scope = f"{day}/{region}/{service}/aws4_request"
        request = f"{method}\n{path}\n{query}\n{canonical}\n{signed}\n{digest}"
        to_sign = (
            f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        )
        key = keys.signing_key(day, region, service)
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        sent["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )
        return sent


# (method, path and query, headers, body) -> (status, body)
Send = Callable[[str, str, dict[str, str], bytes], Awaitable[tuple[int, bytes]]]


class WrongAnswer(Exception):
    """A call was not answered as it should be."""


class BareScan:
    """Sends the calls of many accounts through ``send``, within the limits of ``job``."""

    def __init__(self, job: Job, send: Send) -> None:
        self._job, self._send = job, send
        self._signer = Signer(urlsplit(job.endpoint).netloc)
        hub = job.aws["hub"]
        self._hub = Keys(hub["access_key_id"], hub["secret_access_key"])

    async def run(self, accounts: list[str]) -> Outcome:
        """Scan ``accounts``, some at once. An account that fails is an error in the outcome."""
        outcome, waiting = Outcome(), iter(accounts)

        async def one_after_another() -> None:
            for account in waiting:
                try:
                    await self._account(account)
                    outcome.covered += 1
                except (WrongAnswer, OSError) as error:
                    outcome.errors.append(f"{account}: {type(error).__name__}: {error}")

        await asyncio.gather(*(one_after_another() for _ in range(self._job.accounts_at_once)))
        outcome.errors = outcome.errors[:5]
        return outcome

    async def _account(self, account: str) -> None:
        keys = await self._assume(account)
        region = self._job.region
        policy = "Action=GetAccountPasswordPolicy&Version=2010-05-08"
        _, _, listed, _ = await asyncio.gather(
            self._form(keys, "ec2", region, "Action=DescribeSecurityGroups&Version=2016-11-15"),
            self._form(keys, "ec2", region, "Action=GetEbsEncryptionByDefault&Version=2016-11-15"),
            self._call(keys, "s3", region, "GET", "/", "", b""),
            self._form(keys, "iam", "us-east-1", policy),
        )
        buckets = [
            (_NAME.search(bucket)[1].decode(), _REGION.search(bucket))  # type: ignore[index]
            for bucket in _BUCKET.findall(listed)
        ]
        parts = self._bucket_calls(keys, buckets)
        # As many at once as an account may have: one generator, drawn from by so many hands.
        hands = min(self._job.calls_at_once, max(1, len(buckets)) * len(BUCKET_PARTS))
        await asyncio.gather(*(_draw(parts) for _ in range(hands)))

    def _bucket_calls(
        self, keys: Keys, buckets: list[tuple[str, re.Match[bytes] | None]]
    ) -> Iterator[Awaitable[None]]:
        unplaced = [name for name, region in buckets if region is None]
        for name in unplaced:  # first, since what follows waits for the region
            yield self._unplaced(keys, name)
        for name, region in buckets:
            if region is not None:
                for part in BUCKET_PARTS:
                    yield self._part(keys, name, region[1].decode(), part)

    async def _unplaced(self, keys: Keys, name: str) -> None:
        answer = await self._call(
            keys, "s3", self._job.region, "GET", f"/{quote(name)}", "location=", b""
        )
        located = _LOCATION.search(answer)
        region = located[1].decode() if located else "us-east-1"
        await asyncio.gather(*(self._part(keys, name, region, part) for part in BUCKET_PARTS))

    async def _part(self, keys: Keys, name: str, region: str, part: str) -> None:
        await self._call(keys, "s3", region, "GET", f"/{name}", f"{part}=", b"")

    async def _assume(self, account: str) -> Keys:
        role = quote(self._job.role_arn(account), safe="")
        external_id = quote(self._job.aws["external_id"], safe="")
        answer = await self._form(
            self._hub,
            "sts",
            self._job.region,
            f"Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=floor"
            f"&ExternalId={external_id}&DurationSeconds=3600",
        )
        found = _KEYS.findall(answer)
        if len(found) != 3:
            raise WrongAnswer(f"no credentials for {account}")
        return Keys(*("".join(part.decode() for part in one) for one in found))

    async def _form(self, keys: Keys, service: str, region: str, form: str) -> bytes:
        return await self._call(keys, service, region, "POST", "/", "", form.encode())

    async def _call(
        self, keys: Keys, service: str, region: str, method: str, path: str, query: str, body: bytes
    ) -> bytes:
        headers = self._signer.headers(keys, service, region, method, path, query, body)
        target = f"{path}?{query.removesuffix('=')}" if query else path
        status, answer = await self._send(method, target, headers, body)
        if status != 200 and status != NOT_SET:
            raise WrongAnswer(f"{method} {target} was answered {status}: {answer[:200]!r}")
        return answer


async def _draw(calls: Iterator[Awaitable[None]]) -> None:
    for call in calls:
        await call
