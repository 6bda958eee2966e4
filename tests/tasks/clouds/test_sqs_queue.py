"""The SQS queue of events, against the emulated AWS: its own identity, batches, dead letters."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest

from deployments.local.aws.server import EmulatedAws
from tasks.clouds.queues import Depth, Message
from tasks.clouds.sqs_queue import SqsQueue, region_of
from tasks.errors import AccessRefused, CloudError, ResourceGone
from tasks.inventory import AwsSource, HubCredentials


@pytest.fixture(scope="module")
def aws() -> Iterator[EmulatedAws]:
    with EmulatedAws(accounts=2, seed=83, failing=False) as running:
        yield running


@pytest.fixture
def source(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> AwsSource:
    told = aws.description
    monkeypatch.setenv("QUEUE_KEY", told["hub"]["access_key_id"])
    monkeypatch.setenv("QUEUE_SECRET", told["hub"]["secret_access_key"])
    return AwsSource(
        name="acme",
        regions=("eu-central-1",),
        external_id=told["external_id"],
        organization=True,
        endpoint=told["endpoint"],
        credentials=HubCredentials(
            access_key_id_env="QUEUE_KEY", secret_access_key_env="QUEUE_SECRET"
        ),
        event_queue=told["event_queue"],
        event_dead_letter_queue=told["event_dead_letter_queue"],
    )


@pytest.fixture
async def queue(source: AwsSource) -> AsyncIterator[SqsQueue]:
    async with SqsQueue(source, wait_seconds=2) as opened:
        yield opened
        while left := await SqsQueue._take(opened, 0):
            await opened.delete(left)


def customer(aws: EmulatedAws, service: str) -> Any:
    keys = aws.description["customer"]
    return boto3.client(
        service,
        endpoint_url=aws.endpoint,
        region_name="eu-central-1",
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
    )


def change(aws: EmulatedAws, times: int = 1) -> None:
    iam = customer(aws, "iam")
    for number in range(times):
        iam.update_account_password_policy(MinimumPasswordLength=8 + number)


async def test_a_change_comes_once_and_is_gone_when_deleted(
    aws: EmulatedAws, queue: SqsQueue
) -> None:
    assert queue.source == "acme"
    await asyncio.to_thread(change, aws)
    (message,) = await queue.receive()
    assert json.loads(message.body)["detail"]["eventName"] == "UpdateAccountPasswordPolicy"
    assert message.deliveries == 1
    assert message.sent_at is not None
    assert abs(message.sent_at.timestamp() - time.time()) < 5
    assert await queue.depth() == Depth(waiting=0, in_hand=1)
    await queue.delete([message])
    assert await queue.depth() == Depth(waiting=0, in_hand=0)
    await queue.delete([message])  # gone already: no error


async def test_a_burst_comes_in_few_calls(aws: EmulatedAws, queue: SqsQueue) -> None:
    await asyncio.to_thread(change, aws, 25)
    seen: list[Message] = []
    deadline = time.monotonic() + 10
    while len(seen) < 25 and time.monotonic() < deadline:
        seen += await queue.receive()
    assert len({one.id for one in seen}) == 25
    await queue.delete(seen)
    assert await queue.depth() == Depth(0, 0)


async def test_it_waits_for_a_message_without_asking_again(
    aws: EmulatedAws, queue: SqsQueue
) -> None:
    waiting = asyncio.create_task(queue.receive())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    began = time.monotonic()
    await asyncio.to_thread(change, aws)
    came = await waiting
    assert time.monotonic() - began < 1.5
    assert len(came) == 1
    await queue.delete(came)


async def test_while_it_waits_the_account_answers_other_calls(
    aws: EmulatedAws, queue: SqsQueue
) -> None:
    waiting = asyncio.create_task(queue.receive())
    await asyncio.sleep(0.1)
    await queue.depth()
    assert not waiting.done()
    assert await waiting == []


async def test_what_nobody_can_read_is_put_aside_with_the_reason(
    aws: EmulatedAws, queue: SqsQueue, source: AwsSource
) -> None:
    await asyncio.to_thread(change, aws)
    (message,) = await queue.receive()
    await queue.bury(message, "detail: is missing.")
    assert await queue.depth() == Depth(0, 0)
    dead = replace(source, event_queue=source.event_dead_letter_queue)
    with pytest.raises(AccessRefused):  # Suture may put there, and not take
        async with SqsQueue(dead, wait_seconds=0) as letters:
            await letters.receive()


async def test_without_a_dead_letter_queue_it_is_only_deleted(
    aws: EmulatedAws, source: AwsSource
) -> None:
    async with SqsQueue(replace(source, event_dead_letter_queue=""), wait_seconds=2) as queue:
        await asyncio.to_thread(change, aws)
        (message,) = await queue.receive()
        await queue.bury(message, "unreadable")
        assert await queue.depth() == Depth(0, 0)


async def test_a_queue_that_is_not_there_is_said(aws: EmulatedAws, source: AwsSource) -> None:
    other = replace(source, event_queue=f"{source.event_queue}-x")
    async with SqsQueue(other, wait_seconds=0) as queue:
        with pytest.raises(CloudError) as refused:
            await queue.receive()
    assert isinstance(refused.value, AccessRefused | ResourceGone)


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-3.amazonaws.com/111122223333/q", "eu-west-3"),
        ("https://us-west-2.queue.amazonaws.com/111122223333/q", "us-west-2"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q", "cn-north-1"),
        ("http://127.0.0.1:5000/111122223333/q", "eu-central-1"),
        ("https://sqs.eu-west-3.amazonaws.com.evil.example/q", "eu-central-1"),
    ],
)
def test_the_region_is_the_url_s(url: str, region: str) -> None:
    assert region_of(url, "eu-central-1") == region


async def test_what_is_not_deleted_is_delivered_again(aws: EmulatedAws, source: AwsSource) -> None:
    async with SqsQueue(source, wait_seconds=2, visibility_seconds=1) as queue:
        await asyncio.to_thread(change, aws)
        (first,) = await queue.receive()
        await asyncio.sleep(1.1)
        (second,) = await queue.receive()
        assert (second.id, second.deliveries) == (first.id, 2)
        await queue.delete([second])
