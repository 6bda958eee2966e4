"""Reading an AWS account: every kind of resource in it, or one resource again.

What the kinds are stands in ``aws_kinds``; here is what goes for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_credentials import AwsKeyring
from tasks.clouds.aws_kinds import COLLECTORS
from tasks.clouds.aws_view import GLOBAL, AwsView, Collector, all_pages
from tasks.clouds.transport import reason
from tasks.errors import CloudError
from tasks.inventory import AwsSource
from tasks.model import Account, Cloud, Covered, Resource
from tasks.snapshot import Seen


async def collect(view: AwsView, kinds: Iterable[str]) -> tuple[list[Resource], list[Covered]]:
    """Everything of ``kinds`` in the account, and what of it was read to the end.

    Never raises CloudError: a kind that a region refuses is a Covered that is not ok.
    """
    asks: list[Awaitable[tuple[list[Resource], Covered]]] = []
    for kind in kinds:
        collector = COLLECTORS[kind]
        regions = view.source.regions if collector.regional else view.source.regions[:1]
        asks += [_collect_one(view, collector, region) for region in regions]
    answers = await asyncio.gather(*asks)
    resources = [resource for found, _ in answers for resource in found]
    return resources, [covered for _, covered in answers]


async def _collect_one(
    view: AwsView, collector: Collector, region: str
) -> tuple[list[Resource], Covered]:
    covers = region if collector.regional else GLOBAL
    try:
        found = await collector.collect(view, region)
    except CloudError as error:
        return [], Covered(covers, collector.kind, ok=False, reason=reason(error))
    ok = not found.incomplete
    return found.resources, Covered(covers, collector.kind, ok=ok, reason=found.incomplete)


async def read_one(view: AwsView, kind: str, resource_id: str, region: str) -> Resource:
    """One resource as it is now. Raises ResourceGone, or another CloudError."""
    return await COLLECTORS[kind].read(view, resource_id, region)


async def look(view: AwsView, kind: str, resource_id: str, region: str) -> Seen:
    """One resource as it is now, with what hangs on it. Raises as ``read_one`` does.

    What of that cannot be read is a reason in words: a snapshot is worth taking without it.
    """
    resource = await read_one(view, kind, resource_id, region)
    read_around = COLLECTORS[kind].around
    if read_around is None:
        return Seen(resource)
    try:
        return Seen(resource, await read_around(view, resource))
    except CloudError as error:
        return Seen(resource, {"unread": reason(error)})


# --- Accounts ------------------------------------------------------------------------------------

DISCOVERY_READS = ("organizations:ListAccounts",)


async def discover(source: AwsSource, api: AwsApi, keyring: AwsKeyring) -> list[Account]:
    """The accounts of a source, suspended ones too. Plain lists need no call."""
    if not source.organization:
        return [Account(cloud=Cloud.AWS, id=id, source=source.name) for id in source.accounts]
    if source.discovery_role:
        credentials = await keyring.assume(source.management_account, source.discovery_role)
    else:
        credentials = await keyring.hub()
    pages = api.pages(
        "organizations", "ListAccounts", {}, region=source.regions[0], credentials=credentials
    )
    listed = await all_pages(pages, "ListAccounts", "Accounts")
    return [
        Account(
            cloud=Cloud.AWS,
            id=entry["Id"],
            name=entry.get("Name", ""),
            source=source.name,
            status=str(entry.get("State") or entry.get("Status") or "active").lower(),
        )
        for entry in listed
    ]
