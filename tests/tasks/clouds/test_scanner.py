"""The scanner: what is found is what was planted, and one account's trouble stays its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from deployments.local.aws.server import EmulatedAws
from deployments.local.azure.server import EmulatedAzure
from tasks import settings
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.errors import BadInput, CloudTimeout, MissingData, ResourceGone
from tasks.inventory import AwsSource, AzureSource, HubCredentials, Inventory
from tasks.model import Account, AccountScan, Cloud, Resource, Rule, Severity, Verdict
from tasks.rules import RULES, rule, rules_of


def a_rule(kind: str = "aws.ec2.ebs_defaults", **changes: Any) -> Rule:
    row: dict[str, Any] = {
        "id": "aws_test",
        "kind": kind,
        "severity": Severity.HIGH,
        "title": "t",
        "passes": lambda _resource: True,
        "fix": None,
        "reads": ("ec2:GetEbsEncryptionByDefault",),
        "writes": (),
        "events": (),
        "guide": "g",
    }
    return Rule(**{**row, **changes})


# --- Exactly what was planted --------------------------------------------------------------------


@pytest.mark.slow
async def test_scan_finds_exactly_what_was_planted(
    aws: EmulatedAws,
    azure: EmulatedAzure,
    aws_source: AwsSource,
    azure_source: AzureSource,
    quick: Limits,
) -> None:
    """Both clouds at once, five accounts of which are made to fail."""
    inventory = Inventory(aws=(aws_source,), azure=(azure_source,))
    failing = {**aws.failing, **azure.failing}
    assert Counter(failing.values()) == {"refused": 2, "throttled": 2, "timeout": 1}
    async with Scanner(inventory, quick) as scanner:
        found = await scanner.discover()
        scans = await asyncio.gather(*(scanner.scan(account) for account in found.accounts))

    assert found.failed == ()
    assert [reason for _, reason in found.skipped] == [
        "the account is suspended",
        "the subscription is disabled",
    ]
    said = {"refused": "refused", "throttled": "throttled", "timeout": "timed out"}
    assert {scan.account.id: scan.failed.partition(":")[0] for scan in scans if scan.failed} == {
        account: said[how] for account, how in failing.items()
    }
    for scan in scans:
        if scan.failed:
            assert not scan.resources
            assert not scan.observations
        else:
            assert all(covered.ok for covered in scan.coverage)

    truth = sorted(tuple(sorted(finding.items())) for finding in (*aws.truth, *azure.truth))
    failures = [
        {
            "cloud": str(one.cloud),
            "account": one.account,
            "region": one.region,
            "rule": one.rule,
            "resource": one.resource,
        }
        for scan in scans
        for one in scan.observations
        if one.verdict is Verdict.FAIL
    ]
    assert sorted(tuple(sorted(failure.items())) for failure in failures) == truth
    assert {finding["rule"] for finding in (*aws.truth, *azure.truth)} == {
        rule.id for rule in rules_of(settings.rules())
    }


@pytest.mark.slow
async def test_scanning_all_says_of_each_what_scanning_it_alone_says(
    aws: EmulatedAws,
    azure: EmulatedAzure,
    aws_source: AwsSource,
    azure_source: AzureSource,
    quick: Limits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both clouds, with accounts that fail, and one that no source has."""
    monkeypatch.setattr("tasks.clouds.azure_collect.FEWEST_GRAPH_SUBSCRIPTIONS", 1)
    inventory = Inventory(aws=(aws_source,), azure=(azure_source,))
    before = azure.graph.queries
    async with Scanner(inventory, quick) as scanner:
        found = await scanner.discover()
        lost = [Account(cloud, "lost", source="nobody") for cloud in Cloud]
        accounts = [*found.accounts, *lost]
        every = {
            (scan.account.cloud, scan.account.id): scan async for scan in scanner.scan_all(accounts)
        }
        assert azure.graph.queries > before
        alone = {
            (one.cloud, one.id): await scanner.scan(one)
            for one in accounts
            if one.id not in aws.failing
        }

    def said(scan: AccountScan) -> object:
        by_id = sorted(scan.observations, key=lambda one: one.finding_id)
        return by_id, sorted(map(str, scan.coverage)), scan.failed.partition(" ")[0]

    assert set(every) == {(one.cloud, one.id) for one in accounts}
    assert {one: said(every[one]) for one in alone} == {one: said(alone[one]) for one in alone}
    assert {id for (_, id), scan in every.items() if scan.failed} == {
        *aws.failing,
        *azure.failing,
        "lost",
    }


FEW = tuple(rule(one) for one in ("azure_storage_account_https_only", "aws_s3_bucket_tls_only"))


@pytest.mark.slow
@pytest.mark.parametrize("rules", [None, FEW, RULES], ids=["settings", "few", "all"])
async def test_resource_is_read_again_through_the_scanner(
    rules: Sequence[Rule] | None,
    aws: EmulatedAws,
    azure: EmulatedAzure,
    aws_source: AwsSource,
    azure_source: AzureSource,
    aws_account: str,
    subscription: str,
    quick: Limits,
) -> None:
    inventory = Inventory(aws=(aws_source,), azure=(azure_source,))
    accounts = [
        Account(Cloud.AWS, aws_account, source="acme"),
        Account(Cloud.AZURE, subscription, source="contoso"),
    ]
    async with Scanner(inventory, quick, rules) as scanner:
        for account in accounts:
            scan = await scanner.scan(account)
            assert not scan.failed
            for one in {one.kind: one for one in scan.resources}.values():
                again = await scanner.read(
                    one.cloud, one.account, account.source, one.kind, one.id, one.region
                )
                assert again == one
                seen = await scanner.look(account.source, again)
                assert (seen.resource, seen.resource.reads) == (one, again.reads)
        gone = "arn:aws:s3:::not-there-9"
        with pytest.raises(ResourceGone):
            await scanner.read(Cloud.AWS, aws_account, "acme", "aws.s3.bucket", gone, "us-east-1")


@pytest.mark.slow
async def test_a_resource_is_read_in_the_parts_that_its_rules_need(
    azure: EmulatedAzure, azure_source: AzureSource, subscription: str, quick: Limits
) -> None:
    https_only, soft_delete = FEW[0], rule("azure_storage_account_blob_soft_delete")
    inventory = Inventory(azure=(azure_source,))
    account = Account(Cloud.AZURE, subscription, source="contoso")
    async with Scanner(inventory, quick, [https_only]) as scanner:
        one = (await scanner.scan(account)).resources[0]
        place = (one.cloud, one.account, account.source, one.kind, one.id, one.region)
        calls = scanner.calls
        narrow = await scanner.read(*place)
        wider = await scanner.read(*place, rule=soft_delete)
        assert scanner.calls - calls == 1 + 2
        assert (narrow.shows(https_only), narrow.shows(soft_delete)) == (True, False)
        assert (wider.shows(https_only), wider.shows(soft_delete)) == (True, True)
        assert wider.config.keys() - narrow.config.keys() == {"blobServices"}
    async with Scanner(inventory, quick, RULES) as scanner:
        whole = await scanner.read(*place)
        assert whole.reads is None
        assert whole.config.keys() > wider.config.keys()
        for known in (narrow, wider, whole):
            assert (await scanner.look(account.source, known)).resource == known


@pytest.mark.slow
async def test_only_what_the_rules_need_is_read(
    aws_source: AwsSource, aws_account: str, quick: Limits
) -> None:
    account = Account(Cloud.AWS, aws_account, source="acme")
    async with Scanner(Inventory(aws=(aws_source,)), quick, rules=[a_rule()]) as scanner:
        scan = await scanner.scan(account)
        assert {resource.kind for resource in scan.resources} == {"aws.ec2.ebs_defaults"}
        assert len(scan.observations) == len(aws_source.regions)
        assert scanner.calls == 1 + len(aws_source.regions)  # the role session, then each region
        nothing = await scanner.scan(account, [a_rule("azure.storage.account")])
        assert (nothing.failed, nothing.resources, nothing.coverage) == ("", [], [])


# --- Trouble -------------------------------------------------------------------------------------

EXTERNAL_ID = "7b0c2a0e-1111-4222-8333-44445555666a"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> AwsSource:
    monkeypatch.setenv("TEST_HUB_KEY", "AKIAEXAMPLE")
    monkeypatch.setenv("TEST_HUB_SECRET", "secret")
    return AwsSource(
        name="plain",
        accounts=("111122223333", "111122223334"),
        regions=("eu-central-1",),
        external_id=EXTERNAL_ID,
        credentials=HubCredentials(
            access_key_id_env="TEST_HUB_KEY", secret_access_key_env="TEST_HUB_SECRET"
        ),
    )


SESSION = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleResult><Credentials><AccessKeyId>ASIA</AccessKeyId>
<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>
</AssumeRoleResponse>"""
ENCRYPTED = (
    "<GetEbsEncryptionByDefaultResponse><ebsEncryptionByDefault>true</ebsEncryptionByDefault>"
    "</GetEbsEncryptionByDefaultResponse>"
)


def xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml")


async def test_account_that_takes_too_long_is_failed_with_the_time(
    serve: Any, plain: AwsSource
) -> None:
    """A server that keeps talking is not silent: only the account's own limit ends it."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async with serve(drip) as url:
        limits = Limits(account_seconds=0.5)
        inventory = Inventory(aws=(replace(plain, endpoint=url),))
        async with Scanner(inventory, limits, rules=[a_rule()]) as scanner:
            scan = await scanner.scan(Account(Cloud.AWS, "111122223333", source="plain"))
            assert scan.failed == "timed out after 0.5 s"
            with pytest.raises(CloudTimeout, match=r"timed out after 0\.5 s"):
                await scanner.read(
                    Cloud.AWS, "111122223333", "plain", "aws.ec2.ebs_defaults", "", "eu-central-1"
                )


async def test_accounts_at_once_are_bounded(serve: Any, plain: AwsSource) -> None:
    now = most = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal now, most
        if b"AssumeRole" in await request.read():
            return xml(SESSION)
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return xml(ENCRYPTED)

    async with serve(answer) as url:
        inventory = Inventory(aws=(replace(plain, endpoint=url),))
        async with Scanner(inventory, Limits(accounts=3), rules=[a_rule()]) as scanner:
            accounts = [Account(Cloud.AWS, f"{n:012}", source="plain") for n in range(12)]
            scans = await asyncio.gather(*(scanner.scan(account) for account in accounts))
            scans += [scan async for scan in scanner.scan_all(accounts)]
    assert most == 3
    assert len(scans) == 24
    assert all(len(scan.observations) == 1 for scan in scans)


async def test_reason_of_an_account_of_which_nothing_could_be_read(
    serve: Any, plain: AwsSource, quick: Limits
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if b"AssumeRole" in await request.read():
            return xml(SESSION)
        return web.Response(text="<html>proxy</html>", status=200)

    async with serve(answer) as url:
        source = replace(plain, endpoint=url, regions=("eu-central-1", "us-east-1"))
        rules = [a_rule(), a_rule("aws.ec2.security_group")]
        async with Scanner(Inventory(aws=(source,)), quick, rules=rules) as scanner:
            scan = await scanner.scan(Account(Cloud.AWS, "111122223333", source="plain"))
    assert scan.failed.startswith("failed: ")
    assert scan.failed.count("failed: ") == 1
    assert (scan.resources, scan.observations, scan.coverage) == ((), (), ())


async def test_what_a_rule_cannot_tell_is_unknown(serve: Any, plain: AwsSource) -> None:
    async def answer(request: web.Request) -> web.Response:
        return xml(SESSION if b"AssumeRole" in await request.read() else ENCRYPTED)

    def ask(resource: Resource) -> bool:
        return bool(resource.config["Nothing"])

    async with serve(answer) as url:
        inventory = Inventory(aws=(replace(plain, endpoint=url),))
        async with Scanner(inventory, rules=[a_rule(passes=ask)]) as scanner:
            scan = await scanner.scan(Account(Cloud.AWS, "111122223333", source="plain"))
    (observation,) = scan.observations
    assert observation.verdict is Verdict.UNKNOWN
    assert observation.reason == str(MissingData("Nothing"))


async def test_source_that_cannot_be_asked_harms_no_other(
    plain: AwsSource, quick: Limits, unused_tcp_port: int, tmp_path: Path
) -> None:
    nobody = replace(
        plain,
        name="nobody",
        organization=True,
        accounts=(),
        management_account="000000000000",
        discovery_role="SutureDiscovery",
        endpoint=f"http://127.0.0.1:{unused_tcp_port}",
    )
    untrusted = replace(nobody, name="untrusted", ca_file=str(tmp_path / "missing.pem"))
    secretless = AzureSource(
        name="secretless",
        tenant=EXTERNAL_ID,
        client_id=EXTERNAL_ID,
        client_secret_env="TEST_NOT_SET_ANYWHERE",
    )
    inventory = Inventory(aws=(nobody, plain, untrusted), azure=(secretless,))
    async with Scanner(inventory, quick) as scanner:
        found = await scanner.discover()
    assert [account.id for account in found.accounts] == list(plain.accounts)
    assert {account.source for account in found.accounts} == {"plain"}
    reasons = dict(found.failed)
    assert set(reasons) == {"nobody", "untrusted", "secretless"}
    assert "connection" in reasons["nobody"]
    assert "missing.pem" in reasons["untrusted"]
    assert "TEST_NOT_SET_ANYWHERE" in reasons["secretless"]


async def test_account_of_no_source(plain: AwsSource) -> None:
    async with Scanner(Inventory(aws=(plain,)), rules=[a_rule()]) as scanner:
        lost = await scanner.scan(Account(Cloud.AWS, "111122223333", source="nobody"))
        assert "no entry named 'nobody'" in lost.failed
        crossed = Account(Cloud.AZURE, "x", source="plain")
        with pytest.raises(BadInput, match="not a source of azure"):
            await scanner.read(
                crossed.cloud, crossed.id, "plain", "azure.storage.account", "/x", ""
            )


async def test_error_in_a_rule_is_not_hidden(serve: Any, plain: AwsSource) -> None:
    async def answer(request: web.Request) -> web.Response:
        return xml(SESSION if b"AssumeRole" in await request.read() else ENCRYPTED)

    def broken(_resource: Resource) -> bool:
        raise ZeroDivisionError

    async with serve(answer) as url:
        inventory = Inventory(aws=(replace(plain, endpoint=url),))
        async with Scanner(inventory, rules=[a_rule(passes=broken)]) as scanner:
            account = Account(Cloud.AWS, "111122223333", source="plain")
            with pytest.raises(ZeroDivisionError):
                await scanner.scan(account)
            with pytest.raises(ZeroDivisionError):
                [scan async for scan in scanner.scan_all([account])]
