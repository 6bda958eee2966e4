"""Microsoft.ResourceGraph: queries across subscriptions. It leaves out what the caller cannot read.

It says nothing of what it left out, it lags behind when told to, and it counts every caller's
queries: what makes the real one dangerous to trust is here too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from deployments.local.azure import kql
from deployments.local.azure.authorization import GUID
from deployments.local.azure.protocol import ArmError, ArmRequest, Reply
from deployments.local.azure.tenant import Resource, Subscription, Tenant

TYPE = "microsoft.resourcegraph/resources"
API_VERSIONS = ("2024-04-01", "2022-10-01", "2021-03-01", "2020-04-01-preview", "2019-04-01")
READ = "Microsoft.ResourceGraph/resources/read"
MOST_SUBSCRIPTIONS = 1000
MOST_ROWS = 1000


@dataclass
class GraphOptions:
    """How the graph behaves: ``quota`` queries in ``window`` seconds for each caller, ``lag``
    seconds behind the truth, and at most ``payload`` bytes in an answer."""

    quota: int = 15
    window: float = 5.0
    lag: float = 0.0
    payload: int = 16 * 1024 * 1024


@dataclass
class _Quota:
    """What one caller has used of the window that began at ``since``."""

    since: float
    used: int = 0


@dataclass
class ResourceGraph:
    """POST /providers/Microsoft.ResourceGraph/resources."""

    tenant: Tenant
    options: GraphOptions = field(default_factory=GraphOptions)
    queries: int = 0  # answered so far, refusals included
    _quotas: dict[str, _Quota] = field(default_factory=dict)
    _history: dict[str, deque[tuple[float, bytes]]] = field(default_factory=dict)

    def note(self, subscription_id: str, since: float | None = None) -> None:
        """Remember the subscription as it is now (or since then): soon it is the lagging past."""
        subscription = self.tenant.subscriptions.get(subscription_id)
        if not self.options.lag or subscription is None:
            return
        seen = self._history.setdefault(subscription.id, deque())
        rows = orjson.dumps(self._render(subscription))
        now = self.tenant.clock()
        if not seen or seen[-1][1] != rows:
            seen.append((now if since is None else since, rows))
        while len(seen) > 1 and seen[1][0] <= now - self.options.lag:
            seen.popleft()

    def answer(self, request: ArmRequest) -> Reply:
        """One page of rows, with the headers that tell what is left of the caller's quota."""
        self.queries += 1
        headers = self._count(request.caller.object_id)
        try:
            asked = _checked(request.body)
            rows = self._rows(asked, request)
            return Reply(200, self._page(asked, rows), headers)
        except kql.BadQuery as bad:
            raise _bad_request(
                headers,
                ("InvalidQuery", "Query is invalid. Please refer to the documentation."),
                (bad.code, str(bad)),
            ) from None
        except ArmError as error:
            error.headers |= headers
            raise

    def _rows(self, asked: _Asked, request: ArmRequest) -> list[kql.Row]:
        principal, now = request.caller.object_id, self.tenant.clock()
        access = self.tenant.access
        named = asked.subscriptions or [*self.tenant.subscriptions]
        eligible = [
            found
            for one in named
            if (found := self.tenant.subscriptions.get(one))
            and access.allowed_somewhere(principal, READ, f"/subscriptions/{one}", now)
        ]
        if not eligible:
            raise _bad_request(
                {},
                (
                    "NoValidSubscriptionsInQueryRequest",
                    "There must be at least one subscription that is eligible to contain "
                    f"resources. Given: '{','.join(named[:10])}'.",
                ),
            )

        def visible(row: kql.Row) -> bool:
            return access.allowed(principal, f"{row['type']}/read", row["id"], now)

        def containers() -> list[kql.Row]:
            return [row for one in eligible if visible(row := self._container(one))]

        def resources() -> list[kql.Row]:
            return [row for one in eligible for row in self._present(one) if visible(row)]

        tables = {"resources": resources, "resourcecontainers": containers}
        return kql.run(asked.query, tables)

    def _page(self, asked: _Asked, rows: list[kql.Row]) -> dict[str, Any]:
        # An offset, as the graph's tokens are: what changes between two pages shifts the rest.
        page = rows[asked.offset : asked.offset + asked.top]
        ends = asked.offset + len(page)
        body: dict[str, Any] = {
            "totalRecords": len(rows),
            "count": len(page),
            "data": page,
            "facets": [],
            "resultTruncated": "false",
        }
        if ends < len(rows):
            # Without an id in its rows, a result has no second page.
            if "id" in kql.columns(asked.query) or not kql.columns(asked.query):
                body["$skipToken"] = asked.token(ends)
            else:
                body["resultTruncated"] = "true"
        size = len(orjson.dumps(body))
        if size > self.options.payload:
            raise _bad_request(
                {},
                (
                    "ResponsePayloadTooLarge",
                    f"Response payload size is {size}, and has exceeded the limit of "
                    f"{self.options.payload}. Please consider querying less data at a time and "
                    "make paginated calls if needed.",
                ),
            )
        return body

    def _count(self, caller: str) -> dict[str, str]:
        """Count the query against its caller's quota, or 429."""
        now, options = self.tenant.clock(), self.options
        quota = self._quotas.setdefault(caller, _Quota(now))
        if now >= quota.since + options.window:
            quota.since, quota.used = now, 0
        left = max(1, round(quota.since + options.window - now))
        quota.used += 1
        headers = {
            "x-ms-user-quota-remaining": str(max(0, options.quota - quota.used)),
            "x-ms-user-quota-resets-after": f"00:00:{left:02}",
        }
        if quota.used > options.quota:
            raise ArmError(
                429,
                "RateLimiting",
                _support(),
                headers={**headers, "Retry-After": str(left)},
                details=[
                    {
                        "code": "RateLimiting",
                        "message": "Client application has been throttled and should not attempt "
                        "to repeat the request until an amount of time has elapsed. Please see "
                        "https://aka.ms/resourcegraph-throttling for help.",
                    }
                ],
            )
        return headers

    # Rows

    def _present(self, subscription: Subscription) -> list[kql.Row]:
        """The rows of a subscription as the graph knows them: as they were ``lag`` seconds ago."""
        if not self.options.lag:
            return self._render(subscription)
        self.note(subscription.id)
        known = self.tenant.clock() - self.options.lag
        past = [rows for when, rows in self._history[subscription.id] if when <= known]
        return orjson.loads(past[-1]) if past else []

    def _render(self, subscription: Subscription) -> list[kql.Row]:
        return [self._row(resource) for resource in subscription.resources.values()]

    def _row(self, resource: Resource) -> kql.Row:
        given = resource.render()
        parts = resource.id.split("/")
        return {
            "id": resource.id,
            "name": resource.name,
            "type": resource.type.lower(),
            "tenantId": self.tenant.id,
            "kind": given.get("kind", ""),
            "location": resource.location.replace(" ", "").lower(),
            "resourceGroup": parts[4].lower(),
            "subscriptionId": parts[2].lower(),
            "managedBy": "",
            "sku": given.get("sku"),
            "plan": None,
            "properties": given.get("properties"),
            "tags": dict(resource.tags) or None,
            "identity": None,
            "zones": None,
            "extendedLocation": None,
        }

    def _container(self, subscription: Subscription) -> kql.Row:
        return {
            "id": f"/subscriptions/{subscription.id}",
            "name": subscription.name,
            "type": "microsoft.resources/subscriptions",
            "tenantId": self.tenant.id,
            "kind": "",
            "location": "",
            "resourceGroup": "",
            "subscriptionId": subscription.id,
            "managedBy": "",
            "sku": None,
            "plan": None,
            "properties": {"state": subscription.state},
            "tags": None,
            "identity": None,
            "zones": None,
            "extendedLocation": None,
        }


@dataclass(frozen=True)
class _Asked:
    """A query as its body gives it, checked."""

    query: str
    subscriptions: Sequence[str]
    top: int
    offset: int

    def token(self, offset: int) -> str:
        text = f"{_same(self.query, self.subscriptions)}|{offset}"
        return base64.urlsafe_b64encode(text.encode()).decode()


def _checked(body: object) -> _Asked:
    if not isinstance(body, dict) or not isinstance(body.get("query"), str) or not body["query"]:
        raise _bad_request({}, ("InvalidPayload", "The query is missing."))
    subscriptions = body.get("subscriptions") or []
    if not isinstance(subscriptions, list) or not all(
        isinstance(one, str) and GUID.fullmatch(one) for one in subscriptions
    ):
        raise _bad_request(
            {}, ("SubscriptionsContainInvalidGuids", "Subscriptions must be a list of GUIDs.")
        )
    if len(subscriptions) > MOST_SUBSCRIPTIONS:
        raise _bad_request(
            {},
            (
                "SubscriptionsExceededLimit",
                f"{len(subscriptions)} subscriptions exceed the limit of {MOST_SUBSCRIPTIONS}.",
            ),
        )
    options = body.get("options") or {}
    if not isinstance(options, dict) or set(options) - {"$top", "$skipToken", "resultFormat"}:
        raise _bad_request({}, ("InvalidOptions", "An option is not known here."))
    if options.get("resultFormat", "objectArray") != "objectArray":
        raise _bad_request({}, ("InvalidOptions", "Only objectArray is offered here."))
    top = options.get("$top", MOST_ROWS)
    if not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= MOST_ROWS:
        raise _bad_request({}, ("InvalidOptions", f"$top must be from 1 to {MOST_ROWS}."))
    wanted = [one.lower() for one in subscriptions]
    offset = _offset(options.get("$skipToken"), body["query"], wanted)
    return _Asked(body["query"], wanted, top, offset)


def _offset(token: object, query: str, subscriptions: Sequence[str]) -> int:
    """Where the page begins; a token is good for the query and the scopes it was given for."""
    if token is None:
        return 0
    try:
        text = base64.urlsafe_b64decode(str(token).encode()).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    same, _, offset = text.partition("|")
    if same != _same(query, subscriptions) or not offset.isdecimal():
        raise _bad_request({}, ("InvalidSkipToken", "The skip token is not one of this query's."))
    return int(offset)


def _same(query: str, subscriptions: Sequence[str]) -> str:
    return hashlib.sha256("|".join((query, *sorted(subscriptions))).encode()).hexdigest()[:16]


def _bad_request(headers: Mapping[str, str], *details: tuple[str, str]) -> ArmError:
    """400 as the graph words it: the reasons stand in the details only."""
    return ArmError(
        400,
        "BadRequest",
        _support(),
        headers=headers,
        details=[{"code": code, "message": message} for code, message in details],
    )


def _support() -> str:
    return f"Please provide below info when asking for support: correlationId = {uuid.uuid4()}."
