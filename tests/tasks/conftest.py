"""Generated configurations on which the rules fail, as a cloud would give them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from tasks.model import Rule

Configs = st.SearchStrategy[dict[str, Any]]
WORLD = st.sampled_from(["0.0.0.0/0", "::/0"])
NETWORKS = st.sampled_from(
    ["10.0.0.0/8", "10.1.0.0/16", "203.0.113.0/24", "198.51.100.7/32", "2001:db8::/32"]
)
WORDS = st.text("abcXYZ 019._-:/()#,@[]+=&;{}!$*", min_size=1, max_size=30)  # as EC2 takes them


# --- security groups ----------------------------------------------------------------------------

Ports = tuple[str, int | None, int | None]
SHAPES: st.SearchStrategy[Ports] = st.one_of(
    st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(0, 32_000), st.integers(32_001, 65_535)),
    st.sampled_from([("tcp", 443, 443), ("tcp", 22, 22), ("icmp", -1, -1), ("-1", None, None)]),
)


def culprits(rule: Rule) -> st.SearchStrategy[Ports]:
    """Ports that a rule about security groups does not want open to everybody."""
    if "all_ports" in rule.id:
        return st.sampled_from([("-1", None, None), ("tcp", 0, 65_535), ("udp", 1, 65_535)])
    port = 22 if "ssh" in rule.id else 3389
    around = st.tuples(st.just("tcp"), st.integers(0, port), st.integers(port, 65_535))
    return st.one_of(around, st.sampled_from([("tcp", port, port), ("-1", None, None)]))


@st.composite
def security_groups(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    rows: dict[tuple[Ports, str], str | None] = {(draw(culprits(rule)), draw(WORLD)): None}
    more = st.tuples(SHAPES, st.one_of(WORLD, NETWORKS))
    for key in draw(st.lists(more, max_size=6)):
        rows.setdefault(key, None)
    for key in rows:
        rows[key] = draw(st.none() | WORDS)
    entries: dict[Ports, dict[str, Any]] = {}
    for ((protocol, first, last), cidr), why in rows.items():
        entry = entries.setdefault((protocol, first, last), {"IpProtocol": protocol})
        if first is not None:
            entry |= {"FromPort": first, "ToPort": last}
        v6 = ipaddress.ip_network(cidr).version == 6
        source = {"CidrIpv6" if v6 else "CidrIp": cidr}
        source |= {} if why is None else {"Description": why}
        entry.setdefault("Ipv6Ranges" if v6 else "IpRanges", []).append(source)
    return {"GroupId": "sg-1", "GroupName": "web", "IpPermissions": list(entries.values())}


# --- buckets, passwords -------------------------------------------------------------------------

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@st.composite
def policies(draw: st.DrawFn, bucket: str) -> dict[str, Any]:
    """Bucket policies that do not refuse plain HTTP."""
    arns = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = st.fixed_dictionaries(
        {
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Principal": st.just({"AWS": "arn:aws:iam::111122223333:root"}),
            "Action": st.sampled_from(["s3:GetObject", ["s3:ListBucket", "s3:GetObject"]]),
            "Resource": st.sampled_from([arns, arns[0], arns[1]]),
        },
        optional={
            "Sid": st.text("abcXYZ019", min_size=1, max_size=12),
            "Condition": st.just({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8"]}}),
        },
    )
    statements = draw(st.lists(statement, min_size=1, max_size=3))
    return {"Version": "2012-10-17", **draw(st.sampled_from([{}, {"Id": "p"}]))} | {
        "Statement": statements
    }


@st.composite
def buckets(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    flags = st.fixed_dictionaries({name: st.booleans() for name in BLOCKS})
    block, versioning = draw(st.none() | flags), draw(st.sampled_from(["", "Suspended", "Enabled"]))
    if "public_access" in rule.id and block is not None and all(block.values()):
        block[draw(st.sampled_from(BLOCKS))] = False
    if "versioning" in rule.id and versioning == "Enabled":
        versioning = "Suspended"
    return {
        "Name": "acme-logs",
        "PublicAccessBlock": block,
        "Versioning": {"Status": versioning} if versioning else {},
        "Policy": draw(st.none() | policies("acme-logs")),
    }


@st.composite
def password_policies(draw: st.DrawFn, _: Rule) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"PasswordPolicy": None}
    flags = (
        *("RequireSymbols", "RequireNumbers", "RequireUppercaseCharacters"),
        *("RequireLowercaseCharacters", "AllowUsersToChangePassword", "HardExpiry"),
    )
    policy: dict[str, Any] = {name: draw(st.booleans()) for name in flags}
    policy["MinimumPasswordLength"] = draw(st.integers(6, 13))
    if draw(st.booleans()):
        policy["MaxPasswordAge"] = draw(st.integers(1, 1095))
    if draw(st.booleans()):
        policy["PasswordReusePrevention"] = draw(st.integers(1, 24))
    return {"PasswordPolicy": policy | {"ExpirePasswords": "MaxPasswordAge" in policy}}


# --- Azure --------------------------------------------------------------------------------------


@st.composite
def network_groups(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    """Groups whose first rule lets everybody in, so that no deny stands above it."""
    port = {"ssh": "22", "rdp": "3389"}.get(rule.id.split("_")[4], "*")
    guilty = {
        "access": "Allow",
        "direction": "Inbound",
        "protocol": draw(st.sampled_from(["Tcp", "*"])),
        "sourceAddressPrefix": draw(st.sampled_from(["*", "Internet", "0.0.0.0/0"])),
        "destinationPortRange": draw(st.sampled_from([port, "*"] if port != "*" else ["*"])),
    }
    others = st.fixed_dictionaries(
        {
            "access": st.sampled_from(["Allow", "Deny"]),
            "direction": st.sampled_from(["Inbound", "Outbound"]),
            "protocol": st.sampled_from(["Tcp", "Udp", "*"]),
            "sourceAddressPrefix": st.sampled_from(["*", "VirtualNetwork", "10.0.0.0/8"]),
            "destinationPortRange": st.sampled_from(["22", "20-30", "443", "*", "3389"]),
        },
        optional={"description": WORDS},
    )
    bodies = [guilty, *draw(st.lists(others, max_size=4))]
    first = draw(st.integers(100, 200))
    rules = [
        {
            "name": f"rule-{number}",
            "properties": {
                "sourcePortRange": "*",
                "destinationAddressPrefix": "*",
                "priority": first + 7 * number,
                **body,
            },
        }
        for number, body in enumerate(bodies)
    ]
    return {"name": "nsg", "location": "westeurope", "properties": {"securityRules": rules}}


@st.composite
def storage_accounts(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    wrong: dict[str, tuple[str, list[Any]]] = {
        "azure_storage_account_https_only": ("supportsHttpsTrafficOnly", [False]),
        "azure_storage_account_public_blob_access_off": ("allowBlobPublicAccess", [True, None]),
        "azure_storage_account_minimum_tls": ("minimumTlsVersion", ["TLS1_0", "TLS1_1", None]),
    }
    properties: dict[str, Any] = {
        "supportsHttpsTrafficOnly": draw(st.booleans()),
        "allowBlobPublicAccess": draw(st.sampled_from([True, False, None])),
        "minimumTlsVersion": draw(st.sampled_from(["TLS1_0", "TLS1_2", None])),
    }
    name, values = wrong[rule.id]
    properties[name] = draw(st.sampled_from(values))
    kept = {name: value for name, value in properties.items() if value is not None}
    return {"name": "acme", "kind": "StorageV2", "properties": kept}


BY_KIND: dict[str, Callable[[Rule], Configs]] = {
    "aws.ec2.security_group": security_groups,
    "aws.ec2.ebs_defaults": lambda _: st.just({"EbsEncryptionByDefault": False}),
    "aws.s3.bucket": buckets,
    "aws.iam.password_policy": password_policies,
    "azure.network.security_group": network_groups,
    "azure.storage.account": storage_accounts,
}


@pytest.fixture(scope="session")
def failing_configs() -> Callable[[Rule], Configs]:
    """``failing_configs(rule)``: a strategy of configurations on which the rule fails.

    JSON as the scanner would read it. Kinds that the table has and this has not are an error.
    """
    return lambda rule: BY_KIND[rule.kind](rule).map(lambda config: json.loads(json.dumps(config)))
