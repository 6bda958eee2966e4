"""One AWS account through the eyes of one role, and what reading a kind of resource gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_request import AwsCredentials
from tasks.errors import CloudError
from tasks.inventory import AwsSource
from tasks.model import Cloud, Config, Resource

# The region of what has none; and, for coverage, of a list that answers for every region at once.
GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class AwsView:
    """AwsApi with account and credentials filled in.

    ``slots_free`` bounds how many calls of this account are in flight. ``needed`` are the reads of
    the rules in force: parts that none of them needs are not asked for. None: all are.
    """

    api: AwsApi
    source: AwsSource
    account: str
    credentials: AwsCredentials
    slots_free: asyncio.Semaphore
    needed: frozenset[str] | None = None

    def needs(self, action: str) -> bool:
        return self.needed is None or action in self.needed

    async def get(self, service: str, operation: str, region: str, **params: Any) -> dict[str, Any]:
        async with self.slots_free:
            return await self.api.call(
                service, operation, params, region=region, credentials=self.credentials
            )

    async def list(
        self,
        service: str,
        operation: str,
        region: str,
        key: str,
        page_size: int | None = None,
        sparse: bool = False,
        **params: Any,
    ) -> list[Any]:
        """The items under ``key`` in every page of a paged operation; a page may be empty where
        it is ``sparse``."""
        async with self.slots_free:
            return await all_pages(
                self.api.pages(
                    service,
                    operation,
                    params,
                    region=region,
                    credentials=self.credentials,
                    page_size=page_size,
                ),
                operation,
                key,
                sparse=sparse,
            )

    def arn(self, service: str, region: str, rest: str) -> str:
        return f"arn:{self.source.partition}:{service}:{region}:{self.account}:{rest}"

    def resource(
        self, kind: str, region: str, id: str, name: str, config: Config, tags: Any = ()
    ) -> Resource:
        """``tags`` as AWS lists them: [{"Key": …, "Value": …}], or as an object."""
        pairs = (
            tags
            if isinstance(tags, Mapping)
            else {
                tag.get("Key", tag.get("TagKey", "")): tag.get("Value", tag.get("TagValue", ""))
                for tag in tags
            }
        )
        return Resource(
            cloud=Cloud.AWS,
            account=self.account,
            region=region,
            kind=kind,
            id=id,
            name=name,
            config=config,
            tags=dict(pairs),
        )


async def all_pages(
    pages: AsyncIterator[dict[str, Any]], operation: str, key: str, *, sparse: bool = False
) -> list[Any]:
    return [
        item async for page in pages if page or not sparse for item in part_of(page, key, operation)
    ]


def part_of(answer: Mapping[str, Any], key: str, operation: str) -> Any:
    """A part that the answer must have: a strange answer must not pass for an empty account.

    ``key`` may lead further in, with dots between.
    """
    found: Any = answer
    for step in key.split("."):
        if not isinstance(found, Mapping) or step not in found:
            raise CloudError(f"the answer has no {key}", operation=operation)
        found = found[step]
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """What one collector found. ``incomplete`` says why something is missing, if it is."""

    resources: list[Resource] = field(default_factory=list)
    incomplete: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """How one kind is read.

    ``collect(view, region)`` finds all of a region; ``read(view, id, region)`` re-reads one and
    raises ResourceGone. ``reads`` are the IAM actions both need. A kind that is not ``regional``
    is asked for once, in the source's first region, and the answer counts for every region.
    ``around(view, resource)`` reads what hangs on one, with those same actions, for its snapshots.

    What a scan costs, as "rds:DescribeDBInstances": the calls made ``once`` for each region (or
    account), the ones for ``each`` resource that is found, and those for each thing that a part of
    such a resource lists (``deeper``). Retries, and pages after the first, come on top.
    """

    kind: str
    reads: tuple[str, ...]
    collect: Callable[[AwsView, str], Awaitable[Found]]
    read: Callable[[AwsView, str, str], Awaitable[Resource]]
    regional: bool = True
    around: Callable[[AwsView, Resource], Awaitable[Mapping[str, Any]]] | None = None
    once: tuple[str, ...]
    each: tuple[str, ...] = ()
    deeper: tuple[str, ...] = ()
