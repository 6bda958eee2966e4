"""The emulated SQS: long queues, what is hidden, and who hangs up while it waits."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from moto.sqs.models import sqs_backends

from deployments.local.aws import queues
from deployments.local.aws.server import EmulatedAws

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def aws():
    with EmulatedAws(accounts=2, seed=97, failing=False) as running:
        yield running


def connected(aws, keys=None, **options):
    keys = keys or aws.description["customer"]
    return boto3.client(
        "sqs",
        endpoint_url=aws.endpoint,
        region_name=REGION,
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}, **options),
    )


@pytest.fixture
def sqs(aws):
    client = connected(aws)
    yield client
    client.close()


@pytest.fixture
def queue(sqs, request):
    url = sqs.create_queue(QueueName=request.node.name[:80])["QueueUrl"]
    yield url
    sqs.delete_queue(QueueUrl=url)


def receive(sqs, queue, **params):
    asked = {"MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["All"], **params}
    return sqs.receive_message(QueueUrl=queue, **asked).get("Messages", [])


def bodies(messages):
    return [one["Body"] for one in messages]


def counts(sqs, queue):
    names = ("", "NotVisible", "Delayed")
    wanted = [f"ApproximateNumberOfMessages{one}" for one in names]
    told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=wanted)["Attributes"]
    return tuple(int(told[one]) for one in wanted)


def test_messages_come_in_order_and_are_hidden_until_their_time_is_up(sqs, queue):
    for number in range(12):
        sqs.send_message(QueueUrl=queue, MessageBody=str(number))
    first = receive(sqs, queue, VisibilityTimeout=1)
    assert bodies(first) == [str(number) for number in range(10)]
    assert bodies(receive(sqs, queue, VisibilityTimeout=60)) == ["10", "11"]
    assert counts(sqs, queue) == (0, 12, 0)
    time.sleep(1.1)
    again = receive(sqs, queue)
    assert bodies(again) == bodies(first)
    assert {one["Attributes"]["ApproximateReceiveCount"] for one in again} == {"2"}


def test_what_is_deleted_by_any_of_its_receipts_is_gone(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="told")
    (first,) = receive(sqs, queue, VisibilityTimeout=0)
    (second,) = receive(sqs, queue, VisibilityTimeout=0)
    assert first["ReceiptHandle"] != second["ReceiptHandle"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    assert counts(sqs, queue) == (0, 0, 0)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"])
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        sqs.delete_message(QueueUrl=queue, ReceiptHandle="never given")


def test_one_call_gives_no_message_twice(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="once")
    assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1
    assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1


def test_a_message_that_is_given_back_ends_a_long_poll(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="back")
    (held,) = receive(sqs, queue)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, sqs, queue, WaitTimeSeconds=5)
        time.sleep(0.3)
        assert not waiting.done()
        given_back = time.monotonic()
        sqs.change_message_visibility(
            QueueUrl=queue, ReceiptHandle=held["ReceiptHandle"], VisibilityTimeout=0
        )
        assert bodies(waiting.result()) == ["back"]
        assert time.monotonic() - given_back < 1


def test_a_delayed_message_ends_a_long_poll_when_it_is_due(sqs, queue):
    sqs.send_message(QueueUrl=queue, MessageBody="later", DelaySeconds=1)
    assert counts(sqs, queue) == (0, 0, 1)
    assert receive(sqs, queue, WaitTimeSeconds=0) == []
    began = time.monotonic()
    assert bodies(receive(sqs, queue, WaitTimeSeconds=5)) == ["later"]
    assert time.monotonic() - began < 2


def test_the_queue_s_own_wait_counts_where_a_call_says_none(sqs, queue):
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"ReceiveMessageWaitTimeSeconds": "1"})
    began = time.monotonic()
    assert receive(sqs, queue) == []
    assert 0.9 < time.monotonic() - began < 3
    with pytest.raises(ClientError, match="WaitTimeSeconds"):
        receive(sqs, queue, WaitTimeSeconds=21)


def test_what_was_tried_too_often_goes_to_the_dead_letters(sqs, queue):
    dead = sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
    account, name = dead.split("/")[-2:]
    redrive = {
        "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{account}:{name}",
        "maxReceiveCount": 3,
    }
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": json.dumps(redrive)})
    sqs.send_message(QueueUrl=queue, MessageBody="nobody can read this")
    for _ in range(3):
        assert len(receive(sqs, queue, VisibilityTimeout=0)) == 1
    assert receive(sqs, queue) == []
    (found,) = receive(sqs, dead)
    assert found["Body"] == "nobody can read this"
    sqs.delete_message(QueueUrl=dead, ReceiptHandle=found["ReceiptHandle"])
    assert counts(sqs, dead) == counts(sqs, queue) == (0, 0, 0)


def test_who_has_hung_up_is_given_nothing(aws, sqs, queue):
    hasty = connected(aws, read_timeout=0.3)
    with pytest.raises(ReadTimeoutError):
        receive(hasty, queue, WaitTimeSeconds=20)
    hasty.close()
    sqs.send_message(QueueUrl=queue, MessageBody="for who is there")
    (message,) = receive(sqs, queue, WaitTimeSeconds=2)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_who_still_speaks_in_forms_polls_as_long(aws, sqs, queue):
    keys = aws.description["customer"]
    signer = SigV4Auth(Credentials(keys["access_key_id"], keys["secret_access_key"]), "sqs", REGION)

    def receive_in_a_form():
        asked = {"Action": "ReceiveMessage", "Version": "2012-11-05", "WaitTimeSeconds": "1"}
        body = urlencode({**asked, "QueueUrl": queue})
        about = {"Content-Type": "application/x-www-form-urlencoded"}
        request = AWSRequest("POST", f"{aws.endpoint}/", data=body, headers=about)
        signer.add_auth(request)
        return httpx.post(request.url, content=body, headers=dict(request.headers), trust_env=False)

    began = time.monotonic()
    answer = receive_in_a_form()
    assert (answer.status_code, "<Message>" in answer.text) == (200, False)
    assert 0.9 < time.monotonic() - began < 3
    sqs.send_message(QueueUrl=queue, MessageBody="in-a-form")
    assert "<Body>in-a-form</Body>" in receive_in_a_form().text


def test_the_queue_of_another_account_is_not_ours_by_its_name(aws):
    hub = aws.description["hub"]
    own, other = aws.event_queue, aws.description["organization"]["management_account"]
    sqs = connected(aws, keys=hub)
    receive(sqs, own, WaitTimeSeconds=0, VisibilityTimeout=0)
    with pytest.raises(ClientError, match="AccessDenied"):
        receive(sqs, own.replace(hub["account"], other), WaitTimeSeconds=0)
    sqs.close()


def test_who_waits_does_not_keep_the_emulator_from_stopping():
    with EmulatedAws(accounts=1, seed=98) as emulated, ThreadPoolExecutor(1) as pool:
        hub = connected(emulated, keys=emulated.description["hub"])
        waiting = pool.submit(receive, hub, emulated.event_queue, WaitTimeSeconds=20)
        time.sleep(0.2)
        began = time.monotonic()
        emulated.stop()
        assert time.monotonic() - began < 2
        assert isinstance(waiting.exception(5), BotoCoreError)
        hub.close()


def test_messages_take_no_more_work_the_more_there_are(sqs, queue):
    """Ten times as many make about ten times as many calls; moto makes a hundred times as many."""

    def calls(count):
        made = 0

        def noted(_frame, event, _argument):
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(noted)
        try:
            send_and_take(count)
        finally:
            sys.setprofile(None)
        return made

    def send_and_take(count):
        for number in range(count):
            queues.put(account, REGION, name, f"message {number}")
        left = count
        while left:
            found = backend.receive_message(name, 10, 0, 60)
            assert not backend.delete_message_batch(
                name, [{"Id": one.id, "ReceiptHandle": one.receipt_handle} for one in found]
            )[1]
            left -= len(found)

    account, name = queue.split("/")[-2:]
    backend = sqs_backends[account][REGION]
    few = calls(100)
    assert few > 1_000
    assert calls(1_000) < 15 * few
    assert counts(sqs, queue) == (0, 0, 0)
