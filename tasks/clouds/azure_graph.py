"""Azure Resource Graph: a query reads up to a thousand subscriptions, and is not believed blindly.

The graph leaves out what the identity may not read and says nothing of it, so that a subscription
that refuses looks like an empty one. What it answers counts for a subscription only when

- the identity may read the type on the whole subscription, as ARM's permissions say;
- the graph knows the subscription and has counted its rows;
- one answer then gives exactly as many, each once. Answers are never continued: skip tokens are
  positions, and what comes and goes between two pages shifts the rest. The count says beforehand
  which subscriptions fit into one answer.

Where any of it fails, ARM's own list is asked, and refuses in its own words. What stays is that the
graph lags behind, by seconds mostly and by minutes at times: it serves scans of the fleet, never a
scan of one account after an event or the check of a fix.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

from tasks.clouds.azure_api import AzureApi
from tasks.errors import CloudError

MOST_SUBSCRIPTIONS = 1000  # in one query
MOST_ROWS = 1000  # in one answer
PERMISSIONS_API = "2022-04-01"
# What the identity needs on each subscription beside the kinds; without them, lists are asked.
GRAPH_READS = frozenset(
    {"Microsoft.Authorization/permissions/read", "Microsoft.ResourceGraph/resources/read"}
)

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

    Ask for the subscriptions in the order of ``subscriptions``: queries follow that order and are
    sent only when somebody waits for them, so that one answer and what is being taken is all it
    holds. ``shape`` turns a subscription and a row into what is wanted, or raises CloudError.
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
        self._count_query = (
            "resourcecontainers | where type =~ 'microsoft.resources/subscriptions'"
            f" | join kind=leftouter ({wanted} | summarize found = count() by subscriptionId)"
            " on subscriptionId | project subscriptionId, found"
        )
        self._rows_query = (
            f"{wanted} | project id, name, type, location, subscriptionId, tags, kind, sku,"
            " properties | order by subscriptionId asc, id asc"
        )
        self._shape = shape
        self._turn = asyncio.Lock()
        self._counted: dict[str, int] | None = None  # rows of each subscription that is known
        self._groups: deque[tuple[str, ...]] = deque()  # each fits into one answer
        self._to_read: set[str] = set()  # all that is in a group
        self._found: dict[str, list[T]] = {}  # what can be vouched for and is not taken yet
        self._dropped: set[str] = set()
        self.error: CloudError | None = None  # why the graph was given up, if it was

    async def take(self, api: AzureApi, subscription: str) -> list[T] | None:
        """All that the graph has of the subscription; None when it does not vouch for that.

        Never raises CloudError: a graph that refuses, throttles or errs is None from then on for
        every subscription it had not answered for.
        """
        async with self._turn:
            try:
                while self.error is None and not self._is_read(subscription):
                    await self._read_on(api)
            except CloudError as error:
                self.error = error
        return self._found.pop(subscription, None)

    def drop(self, subscription: str) -> None:
        """Nobody will take this one: it is not asked for, or not kept."""
        self._dropped.add(subscription)
        self._found.pop(subscription, None)

    def _is_read(self, subscription: str) -> bool:
        return self._counted is not None and subscription not in self._to_read

    async def _read_on(self, api: AzureApi) -> None:
        """The next query. Nothing changes before its answer: whoever waits may be cancelled."""
        if self._counted is None:
            page = await api.query(self._count_query, self.subscriptions, top=MOST_ROWS)
            self._counted = _counts(page)
            self._divide(self._counted)
            return
        group = self._groups[0]
        wanted = tuple(one for one in group if one not in self._dropped)
        try:
            page = await api.query(self._rows_query, wanted, top=MOST_ROWS) if wanted else {}
        except CloudError as error:
            if error.code != "ResponsePayloadTooLarge":
                raise
            self._groups.popleft()
            half = len(wanted) // 2
            smaller = (wanted[:half], wanted[half:]) if half else ()
            self._groups.extendleft(reversed(smaller))
            self._to_read -= {*group} - {*(wanted if half else ())}
            return
        self._groups.popleft()
        if wanted:
            self._keep(wanted, page, self._counted)
        self._to_read.difference_update(group)

    def _divide(self, counted: Mapping[str, int]) -> None:
        """Put what fits into one answer together. What does not is left to ARM's list."""
        group: list[str] = []
        rows = 0
        for subscription in self.subscriptions:
            found = counted.get(subscription)
            if found == 0:
                self._found[subscription] = []
            if not found or found > MOST_ROWS or subscription in self._dropped:
                continue
            if rows + found > MOST_ROWS:
                self._groups.append(tuple(group))
                group, rows = [], 0
            group.append(subscription)
            rows += found
        if group:
            self._groups.append(tuple(group))
        self._to_read.update(*self._groups)

    def _keep(
        self, group: tuple[str, ...], page: dict[str, Any], counted: Mapping[str, int]
    ) -> None:
        by_subscription: dict[str, list[Any]] = {one: [] for one in group}
        try:
            for row in _data(page):
                by_subscription[row["subscriptionId"]].append(row)
            if _is_cut(page):
                return  # more has come since it was counted: which of it is missing, nobody knows
            for subscription, rows in by_subscription.items():
                if len({row["id"] for row in rows}) == len(rows) == counted[subscription]:
                    self._shape_all(subscription, rows)
        except (KeyError, TypeError):
            raise _strange("gave a row that it was not asked for, or one without an id") from None

    def _shape_all(self, subscription: str, rows: list[dict[str, Any]]) -> None:
        if subscription in self._dropped:
            return
        try:
            self._found[subscription] = [self._shape(subscription, row) for row in rows]
        except CloudError:
            return  # ARM's list will say it


def _counts(page: dict[str, Any]) -> dict[str, int]:
    if _is_cut(page):
        raise _strange("counted more subscriptions than it was asked for")
    try:
        return {row["subscriptionId"]: int(row["found"] or 0) for row in _data(page)}
    except (KeyError, TypeError, ValueError):
        raise _strange("did not count") from None


def _data(page: dict[str, Any]) -> list[Any]:
    data = page.get("data")
    if not isinstance(data, list):
        raise _strange("answered no list of rows")
    return data


def _is_cut(page: dict[str, Any]) -> bool:
    """A skip token says that there is more; ``resultTruncated`` without one, that it is lost."""
    return bool(page.get("$skipToken")) or str(page.get("resultTruncated")).lower() == "true"


def _strange(what: str) -> CloudError:
    return CloudError(f"the graph {what}", operation="POST Microsoft.ResourceGraph/resources")
