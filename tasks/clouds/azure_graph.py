"""Azure Resource Graph: a query reads up to a thousand subscriptions, and is not believed blindly.

The graph leaves out what the identity may not read and says nothing of it, so that a subscription
that refuses looks like an empty one. What it answers counts for a subscription only when

- the identity may read the type on the whole subscription, as ARM's permissions say (``may``);
- the graph knows the subscription, and gives exactly as many rows as it counted beforehand, each
  once: pages are offsets, which shift when something comes or goes meanwhile.

Where either fails, ARM's own list is asked, and refuses in its own words. What stays is that the
graph lags behind, by seconds mostly and by minutes at times: it serves scans of the fleet, never a
scan of one account after an event or the check of a fix.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Generic, TypeVar

from tasks.clouds.azure_api import AzureApi
from tasks.errors import CloudError

MOST_SUBSCRIPTIONS = 1000  # in one query
MOST_ROWS = 1000  # in one page
PERMISSIONS_API = "2022-04-01"
# What the identity needs on each subscription beside the kinds; without them, lists are asked.
GRAPH_READS = frozenset(
    {"Microsoft.Authorization/permissions/read", "Microsoft.ResourceGraph/resources/read"}
)
_END = "~"  # sorts after every subscription id

T = TypeVar("T")


async def permissions(api: AzureApi, subscription: str) -> Callable[[str], bool]:
    """May the identity do an operation on the whole subscription: operation -> bool.

    Each role is an entry of its own, {"actions", "notActions"} with wildcards: what one does not
    allow another may. An entry with a condition is taken for none. Raises CloudError.
    """
    path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/permissions"
    entries = [item async for item in api.items(path, PERMISSIONS_API)]
    try:
        roles = [
            (_pattern(tuple(entry["actions"])), _pattern(tuple(entry.get("notActions") or ())))
            for entry in entries
            if not entry.get("condition")
        ]
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"ARM described permissions that Suture cannot read: {error!r}"
        raise CloudError(problem, operation=f"GET {path}") from None

    def may(operation: str) -> bool:
        return any(
            allowed.fullmatch(operation) and not refused.fullmatch(operation)
            for allowed, refused in roles
        )

    return may


@lru_cache(maxsize=256)  # a fleet has a handful of roles
def _pattern(actions: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all of them; it matches nothing when there are none."""
    each = "|".join(re.escape(action).replace(r"\*", ".*") for action in actions)
    return re.compile(each or r"(?!)", re.IGNORECASE)


class SharedGraph(Generic[T]):
    """One reading of the graph that up to 1,000 subscriptions of a source share.

    Ask for the subscriptions in the order of ``subscriptions``: pages come in that order and are
    read only when somebody waits for them, so that a page and what is being taken is all it holds.
    ``shape`` turns a subscription and a row into what is wanted, or raises CloudError.
    """

    def __init__(
        self,
        subscriptions: Iterable[str],
        types: Iterable[str],
        shape: Callable[[str, dict[str, Any]], T],
    ) -> None:
        self.subscriptions = tuple(sorted({one.lower() for one in subscriptions}))
        if len(self.subscriptions) > MOST_SUBSCRIPTIONS:
            raise ValueError(f"the graph takes {MOST_SUBSCRIPTIONS} subscriptions at most")
        wanted = f"resources | where type in~ ({', '.join(repr(one.lower()) for one in types)})"
        self._census_query = (
            "resourcecontainers | where type =~ 'microsoft.resources/subscriptions'"
            f" | join kind=leftouter ({wanted} | summarize found = count() by subscriptionId)"
            " on subscriptionId | project subscriptionId, found | order by subscriptionId asc"
        )
        self._rows_query = (
            f"{wanted} | project id, name, type, location, subscriptionId, tags, kind, sku,"
            " properties | order by subscriptionId asc, id asc"
        )
        self._shape = shape
        self._turn = asyncio.Lock()
        self._top = MOST_ROWS
        self._expected: dict[str, int] | None = None  # rows of each subscription that is known
        self._left = 0  # rows still to come, at the most
        self._reached = ""  # the subscription of the last row: those before it are complete
        self._ids: set[str] = set()  # … of its rows
        self._taken: dict[str, list[T]] = {}
        self._dropped: set[str] = set()
        self._skip_token = ""
        self._seen_tokens: set[str] = set()
        self._ended = False
        self.error: CloudError | None = None  # why the graph was given up, if it was

    async def take(self, api: AzureApi, subscription: str) -> list[T] | None:
        """All that the graph has of the subscription; None when it does not vouch for that.

        Never raises CloudError: a graph that refuses, throttles or errs is None from then on for
        every subscription it had not finished.
        """
        async with self._turn:
            try:
                while not self._ended and not self._is_complete(subscription):
                    await self._read_on(api)
            except CloudError as error:
                self.error, self._ended = error, True
        complete, found = self._is_complete(subscription), self._taken.pop(subscription, [])
        if not complete or self._expected is None or subscription in self._dropped:
            return None
        return found if len(found) == self._expected.get(subscription) else None

    def drop(self, subscription: str) -> None:
        """Nobody will take this one: its rows are not kept."""
        self._dropped.add(subscription)
        self._taken.pop(subscription, None)

    def _is_complete(self, subscription: str) -> bool:
        if self._expected is None:
            return False
        return subscription < self._reached or not self._expected.get(subscription)

    async def _read_on(self, api: AzureApi) -> None:
        """The next page. Nothing changes before it is there: whoever waits may be cancelled."""
        if self._expected is None:
            self._count(await api.query(self._census_query, self.subscriptions, top=MOST_ROWS))
            return
        try:
            page = await api.query(
                self._rows_query,
                self.subscriptions,
                top=self._top,
                skip_token=self._skip_token,
            )
        except CloudError as error:
            if error.code != "ResponsePayloadTooLarge" or self._top == 1:
                raise
            self._top //= 2
            return
        self._keep(page)

    def _count(self, page: dict[str, Any]) -> None:
        if _next_token(page):
            raise _strange("counted more subscriptions than it was asked for")
        try:
            counted = {row["subscriptionId"]: int(row["found"] or 0) for row in _data(page)}
        except (KeyError, TypeError, ValueError):
            raise _strange("did not count") from None
        self._left = 2 * sum(counted.values()) + MOST_ROWS  # what comes meanwhile is forgiven
        self._expected = {one: counted[one] for one in self.subscriptions if one in counted}

    def _keep(self, page: dict[str, Any]) -> None:
        rows, token = _data(page), _next_token(page)
        self._left -= len(rows)
        if token and (token in self._seen_tokens or not rows or self._left < 0):
            raise _strange("does not come to an end")
        self._seen_tokens.add(token)
        for row in rows:
            self._keep_row(row)
        self._skip_token = token
        if not token:
            self._reached, self._ended = _END, True

    def _keep_row(self, row: Any) -> None:
        expected = self._expected or {}
        try:
            subscription, resource_id = row["subscriptionId"], row["id"]
            if subscription < self._reached or subscription not in expected:
                raise _strange("answered what it was not asked, or not in order")
        except (KeyError, TypeError):
            raise _strange("gave a row without id or subscription") from None
        if subscription != self._reached:
            self._reached = subscription
            self._ids.clear()
        if subscription in self._dropped:
            return
        found = self._taken.setdefault(subscription, [])
        try:
            if resource_id in self._ids or len(found) == expected[subscription]:
                raise _strange("gave a resource twice, or more than it counted")
            self._ids.add(resource_id)
            found.append(self._shape(subscription, row))
        except CloudError:
            self.drop(subscription)  # ARM's list will say it


def _data(page: dict[str, Any]) -> list[Any]:
    data = page.get("data")
    if not isinstance(data, list):
        raise _strange("answered no list of rows")
    return data


def _next_token(page: dict[str, Any]) -> str:
    """The skip token says that there is more; ``resultTruncated`` without it, that it is lost."""
    token = page.get("$skipToken") or ""
    if not token and str(page.get("resultTruncated", "false")).lower() != "false":
        raise _strange("cut its answer short")
    return str(token)


def _strange(what: str) -> CloudError:
    return CloudError(f"the graph {what}", operation="POST Microsoft.ResourceGraph/resources")
