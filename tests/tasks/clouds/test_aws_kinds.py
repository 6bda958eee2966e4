"""An account that has nothing of a kind is read to its end, like one that has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tasks.clouds.aws_kinds import COLLECTORS
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.aws_view import AwsView
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.errors import CloudError
from tasks.inventory import AwsSource, Inventory
from tasks.model import Account, Cloud
from tasks.rules import RULES


@pytest.mark.slow
async def test_every_kind_is_read_to_its_end(aws_source: AwsSource, quick: Limits) -> None:
    async with Scanner(Inventory(aws=(aws_source,)), quick) as scanner:
        accounts = (await scanner.discover()).accounts
        account = Account(Cloud.AWS, accounts[-1].id, source=aws_source.name)
        scan = await scanner.scan(account, RULES)
    assert not scan.failed
    assert [covered for covered in scan.coverage if not covered.ok] == []
    assert {covered.kind for covered in scan.coverage} == COLLECTORS.keys()


class Answers:
    """An API whose every answer is this."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    async def pages(self, *_: object, **__: object) -> AsyncIterator[dict[str, Any]]:
        yield self.answer


def view(answer: dict[str, Any]) -> AwsView:
    source = AwsSource(name="acme", regions=("r",), external_id="x", accounts=("1" * 12,))
    api: Any = Answers(answer)
    return AwsView(api, source, "1" * 12, AwsCredentials("a", "b"), asyncio.Semaphore(1))


async def test_an_empty_answer_is_an_empty_list_only_where_aws_says_it_so() -> None:
    found = await COLLECTORS["aws.sqs.queue"].collect(view({}), "r")
    assert (found.resources, found.incomplete) == ([], "")
    for kind, answer in (("aws.sns.topic", {}), ("aws.sqs.queue", {"Odd": []})):
        with pytest.raises(CloudError, match="has no"):
            await COLLECTORS[kind].collect(view(answer), "r")
