"""Contracts that every row of the rule table keeps, walked over the whole table."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import BadInput, SutureError
from tasks.model import Cloud, Config, Resource, Rule, Verdict
from tasks.rules import RULES, rule
from tasks.rules.table import lint, markdown_table

BUCKET = "arn:aws:s3:::acme-logs"
ON = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
TLS_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "tls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [BUCKET, f"{BUCKET}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ],
}


def group(*permissions: tuple[str, int | None, int | None, str]) -> dict[str, Any]:
    entries = []
    for protocol, first, last, cidr in permissions:
        v6 = ":" in cidr
        entry: dict[str, Any] = {"IpProtocol": protocol}
        if first is not None:
            entry |= {"FromPort": first, "ToPort": last}
        entry["Ipv6Ranges" if v6 else "IpRanges"] = [{"CidrIpv6" if v6 else "CidrIp": cidr}]
        entries.append(entry)
    return {"GroupId": "sg-1", "GroupName": "web", "IpPermissions": entries}


def nsg(*rules: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {
            "name": f"rule-{number}",
            "properties": {
                "priority": 100 * number,
                "direction": "Inbound",
                "access": "Allow",
                "protocol": "Tcp",
                "sourceAddressPrefix": "*",
                "sourcePortRange": "*",
                "destinationAddressPrefix": "*",
                "destinationPortRange": "22",
                **given_rule,
            },
        }
        for number, given_rule in enumerate(rules, 1)
    ]
    return {"name": "nsg", "location": "westeurope", "properties": {"securityRules": entries}}


def bucket(**parts: Any) -> dict[str, Any]:
    return {"Name": "acme-logs", "PublicAccessBlock": ON, "Versioning": {}, "Policy": None, **parts}


def password_policy(**settings: Any) -> dict[str, Any]:
    return {"PasswordPolicy": {"MinimumPasswordLength": 8, "ExpirePasswords": False, **settings}}


def storage(**properties: Any) -> dict[str, Any]:
    return {"name": "acme", "kind": "StorageV2", "properties": properties}


def port_rows(port: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return (
        [group(), group(("tcp", port, port, "10.0.0.0/8")), group(("tcp", 443, 443, "0.0.0.0/0"))],
        [
            group(("tcp", port, port, "0.0.0.0/0")),
            group(("6", port - 2, port + 8, "::/0")),
            group(("-1", None, None, "0.0.0.0/0")),
            group(("tcp", port, port, "0.0.0.0/1"), ("tcp", port, port, "128.0.0.0/1")),
        ],
    )


def nsg_rows(port: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return (
        [
            nsg(),
            nsg({"destinationPortRange": "443"}),
            nsg(
                {"access": "Deny", "protocol": "*", "destinationPortRange": "1-4000"},
                {"destinationPortRange": port},
            ),
        ],
        [
            nsg({"destinationPortRange": port}),
            nsg({"destinationPortRange": "*", "sourceAddressPrefix": "Internet"}),
        ],
    )


# One row per rule: configurations that pass, and configurations that fail.
EXAMPLES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "aws_ec2_security_group_ssh_not_open": port_rows(22),
    "aws_ec2_security_group_rdp_not_open": port_rows(3389),
    "aws_ec2_security_group_all_ports_not_open": (
        [group(("tcp", 443, 443, "0.0.0.0/0")), group(("-1", None, None, "10.0.0.0/8"))],
        [
            group(("-1", None, None, "::/0")),
            group(("udp", 0, 65535, "0.0.0.0/0")),
            group(("tcp", 1, 65535, "0.0.0.0/0"), ("tcp", 443, 443, "0.0.0.0/0")),
        ],
    ),
    "aws_ec2_ebs_encrypted_by_default": (
        [{"EbsEncryptionByDefault": True}],
        [{"EbsEncryptionByDefault": False}],
    ),
    "aws_s3_bucket_public_access_blocked": (
        [bucket()],
        [
            bucket(PublicAccessBlock=None),
            bucket(PublicAccessBlock=ON | {"BlockPublicPolicy": False}),
        ],
    ),
    "aws_s3_bucket_versioning_enabled": (
        [bucket(Versioning={"Status": "Enabled"})],
        [bucket(), bucket(Versioning={"Status": "Suspended", "MFADelete": "Disabled"})],
    ),
    "aws_s3_bucket_tls_only": (
        [bucket(Policy=TLS_ONLY)],
        [bucket(), bucket(Policy={"Version": "2012-10-17", "Statement": []})],
    ),
    "aws_iam_password_policy_length": (
        [password_policy(MinimumPasswordLength=14)],
        [
            {"PasswordPolicy": None},
            password_policy(
                RequireSymbols=True,
                RequireNumbers=False,
                RequireUppercaseCharacters=True,
                RequireLowercaseCharacters=True,
                AllowUsersToChangePassword=True,
                ExpirePasswords=True,
                MaxPasswordAge=90,
                PasswordReusePrevention=24,
            ),
        ],
    ),
    "azure_network_security_group_ssh_not_open": nsg_rows("22"),
    "azure_network_security_group_rdp_not_open": nsg_rows("3389"),
    "azure_network_security_group_any_port_not_open": (
        [nsg(), nsg({"destinationPortRange": "443"})],
        [
            nsg({"destinationPortRange": "*", "protocol": "*"}),
            nsg({"destinationPortRange": "1-65535"}),
        ],
    ),
    "azure_storage_account_https_only": (
        [storage(supportsHttpsTrafficOnly=True)],
        [storage(supportsHttpsTrafficOnly=False)],
    ),
    "azure_storage_account_public_blob_access_off": (
        [storage(allowBlobPublicAccess=False)],
        [storage(allowBlobPublicAccess=True), storage()],
    ),
    "azure_storage_account_minimum_tls": (
        [storage(minimumTlsVersion="TLS1_2"), storage(minimumTlsVersion="TLS1_3")],
        [storage(minimumTlsVersion="TLS1_0"), storage()],
    ),
}

# What each fix reads, the part without which nothing can be said.
PARTS = {
    "aws.ec2.security_group": "IpPermissions",
    "aws.ec2.ebs_defaults": "EbsEncryptionByDefault",
    "aws.iam.password_policy": "PasswordPolicy",
    "azure.network.security_group": "properties",
    "azure.storage.account": "properties",
    "aws_s3_bucket_public_access_blocked": "PublicAccessBlock",
    "aws_s3_bucket_versioning_enabled": "Versioning",
    "aws_s3_bucket_tls_only": "Policy",
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers"
IDS = {
    "aws.ec2.security_group": "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
    "aws.ec2.ebs_defaults": "arn:aws:ec2:eu-central-1:111122223333:ebs-encryption-by-default",
    "aws.s3.bucket": BUCKET,
    "aws.iam.password_policy": "arn:aws:iam::111122223333:account-password-policy",
    "azure.network.security_group": f"{PREFIX}/microsoft.network/networksecuritygroups/nsg",
    "azure.storage.account": f"{PREFIX}/microsoft.storage/storageaccounts/acme",
}
every_rule = pytest.mark.parametrize("row", RULES, ids=lambda one: one.id)


def resource(row: Rule, config: dict[str, Any], gaps: dict[str, str] | None = None) -> Resource:
    return Resource(
        cloud=row.cloud,
        account="111122223333",
        region="eu-central-1",
        kind=row.kind,
        id=IDS[row.kind],
        name="example",
        config=Config(copy.deepcopy(config), gaps),
    )


def part(row: Rule) -> str:
    return PARTS.get(row.kind) or PARTS[row.id]


def test_table_is_well_formed() -> None:
    assert lint(RULES) == []


def test_lint_finds_what_is_wrong() -> None:
    good = RULES[0]
    bad = replace(
        good,
        id="Bad-Id",
        writes=(),
        guide="",
        aka=("someone:else!",),
        events=("PutThing",),
    )
    found = "\n".join(lint([good, good, bad]))
    for words in ("more than once", "the id is not", "needs writes", "guide", "reference", "event"):
        assert words in found


def test_every_rule_has_examples() -> None:
    assert EXAMPLES.keys() == {one.id for one in RULES}


def test_unknown_rule_is_bad_input() -> None:
    assert rule(RULES[3].id) is RULES[3]
    with pytest.raises(BadInput, match="not in the rule table"):
        rule("aws_s3_bucket_painted_blue")


def test_markdown_table_lists_every_rule() -> None:
    lines = markdown_table(RULES).splitlines()
    assert len(lines) == len(RULES) + 2
    assert len({line.count("|") for line in lines}) == 1
    assert all(any(f"`{one.id}`" in line for line in lines) for one in RULES)


@every_rule
def test_guide_is_complete(row: Rule) -> None:
    for head in (
        "What it means",
        "Why it matters",
        "CLI",
        "Terraform",
        "fix does",
        "break",
        "back",
    ):
        assert head in row.guide, head
    assert "Console" in row.guide or "Portal" in row.guide
    assert 20 <= len(row.guide.splitlines()) <= 60
    assert "$" not in row.guide.replace("${aws_s3_bucket", "").replace("$web", "")


@every_rule
def test_both_verdicts_exist(row: Rule) -> None:
    passing, failing = EXAMPLES[row.id]
    assert passing
    assert failing
    assert {row.judge(resource(row, one)) for one in passing} == {(Verdict.PASS, "")}
    assert {row.judge(resource(row, one)) for one in failing} == {(Verdict.FAIL, "")}


@every_rule
def test_missing_data_is_unknown(row: Rule) -> None:
    for config in itertools.chain(*EXAMPLES[row.id]):
        without = {name: value for name, value in config.items() if name != part(row)}
        verdict, reason = row.judge(resource(row, without))
        assert verdict is Verdict.UNKNOWN
        assert part(row) in reason
        verdict, reason = row.judge(resource(row, config, {part(row): "AccessDenied"}))
        assert (verdict, reason) == (Verdict.UNKNOWN, f"{part(row)} AccessDenied")


@every_rule
@pytest.mark.parametrize("junk", ["", "text", 7, 1.5, {"odd": []}, [7], [[]], [None], 1])
def test_junk_is_never_a_pass(row: Rule, junk: Any) -> None:
    config = {**EXAMPLES[row.id][0][0], part(row): junk}
    assert row.judge(resource(row, config))[0] is not Verdict.PASS


@every_rule
def test_fix_makes_it_pass_and_undo_restores(
    row: Rule, apply: Any, undo: Any, snapshot: Any
) -> None:
    assert row.fix is not None
    for config in EXAMPLES[row.id][1]:
        before = resource(row, config)
        steps = row.fix(before, {})
        assert steps
        after = apply(before, steps)
        assert row.judge(after) == (Verdict.PASS, "")
        assert row.fix(after, {}) == ()
        assert snapshot(undo(after, steps)) == snapshot(row.undone(before))
        assert before == resource(row, config), "a planner must not change what it is given"


@every_rule
def test_fix_leaves_a_good_resource_alone(row: Rule) -> None:
    assert row.fix is not None
    for config in EXAMPLES[row.id][0]:
        assert row.fix(resource(row, config), {}) == ()


@every_rule
def test_steps_stay_within_what_the_rule_declares(row: Rule) -> None:
    """The permission of every call and every undo is among the rule's writes."""
    assert row.fix is not None
    for config in EXAMPLES[row.id][1]:
        for step in row.fix(resource(row, config), {}):
            assert step.action in row.writes
            assert step.changes
            assert step.undo
            for call in (step.call, *step.undo):
                assert permission(call.cloud, call.operation, call.service) in row.writes
                json.dumps(call.params)


def permission(cloud: Cloud, operation: str, service: str) -> str:
    if cloud is Cloud.AWS:
        renamed = {
            "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
            "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
        }
        return f"{service}:{renamed.get(operation, operation)}"
    if operation == "PATCH":
        return "Microsoft.Storage/storageAccounts/write"
    verb = "delete" if operation == "DELETE" else "write"
    return f"Microsoft.Network/networkSecurityGroups/securityRules/{verb}"


@cache
def sdk_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"))


@every_rule
def test_calls_are_ones_the_sdk_knows(row: Rule) -> None:
    """botocore itself checks names and types of every AWS call and undo."""
    assert row.fix is not None
    values = {"allowed_cidrs": ("10.1.0.0/16", "2001:db8::/32")} if row.inputs else {}
    values = values if row.service != "iam" else {"minimum_length": 20}
    for config in EXAMPLES[row.id][1]:
        for step in row.fix(resource(row, config), values):
            for call in (step.call, *step.undo):
                if call.cloud is Cloud.AZURE:
                    assert call.operation in {"PUT", "PATCH", "DELETE"}
                    assert call.target.startswith(IDS[row.kind])
                    continue
                shape = sdk_model(call.service).operation_model(call.operation).input_shape
                if shape is None:
                    assert not call.params
                    continue
                report = ParamValidator().validate(call.params, shape)
                assert not report.has_errors(), report.generate_report()


# --- nothing crashes --------------------------------------------------------------------------

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.sampled_from(["", "*", "22", "x", "::/0"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.just("id") | st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value that something else could stand in."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_configurations_never_crash_a_rule(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(RULES))
    config = data.draw(st.sampled_from(list(itertools.chain(*EXAMPLES[row.id]))))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([one for one in places(config) if one]))
        config = put(config, path, data.draw(JUNK))
    damaged = resource(row, config)
    verdict, reason = row.judge(damaged)
    assert (verdict is Verdict.UNKNOWN) == bool(reason)
    assert row.fix is not None
    try:
        steps = row.fix(damaged, {})
    except SutureError:
        return
    assert verdict is not Verdict.UNKNOWN
    assert bool(steps) == (verdict is Verdict.FAIL)


def test_no_two_rules_of_a_cloud_claim_one_check() -> None:
    shared = {"cis-aws-6.0:6.3", "cis-aws-6.0:6.4"}  # one control over many ports
    for cloud in Cloud:
        named = [name for one in RULES if one.cloud is cloud for name in one.aka]
        assert {name for name in named if named.count(name) > 1} <= shared
