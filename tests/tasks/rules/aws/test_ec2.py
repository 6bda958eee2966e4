"""Security groups: what is open, and a closing that loses no legitimate source."""

from __future__ import annotations

import copy
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tasks.errors import BadAnswer
from tasks.model import Cloud, Config, Resource, Verdict
from tasks.rules import rule

SSH = rule("aws_ec2_security_group_ssh_not_open")
RDP = rule("aws_ec2_security_group_rdp_not_open")
ALL_PORTS = rule("aws_ec2_security_group_all_ports_not_open")


def permission(
    protocol: str = "tcp", ports: tuple[int, int] | None = (22, 22), **sources: Any
) -> dict[str, Any]:
    """EC2's shape: v4={cidr: description}, v6={...}, everything it always answers included."""
    entry: dict[str, Any] = {
        "IpProtocol": protocol,
        "IpRanges": [],
        "Ipv6Ranges": [],
        "PrefixListIds": sources.get("prefix_lists", []),
        "UserIdGroupPairs": sources.get("groups", []),
    }
    if ports is not None:
        entry |= {"FromPort": ports[0], "ToPort": ports[1]}
    for family, ranges, field in (("v4", "IpRanges", "CidrIp"), ("v6", "Ipv6Ranges", "CidrIpv6")):
        for cidr, description in sources.get(family, {}).items():
            text = {} if description is None else {"Description": description}
            entry[ranges].append({field: cidr, **text})
    return entry


def group(*permissions: dict[str, Any]) -> Resource:
    return Resource(
        cloud=Cloud.AWS,
        account="111122223333",
        region="eu-central-1",
        kind="aws.ec2.security_group",
        id="arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
        name="web",
        config=Config({"GroupId": "sg-1", "IpPermissions": copy.deepcopy(list(permissions))}),
    )


WORLD = {"0.0.0.0/0": None}


@pytest.mark.parametrize(
    ("permissions", "verdict"),
    [
        ([permission(v4=WORLD)], "fail"),
        ([permission(v6={"::/0": None})], "fail"),
        ([permission("6", v4=WORLD)], "fail"),
        ([permission(ports=(20, 30), v4=WORLD)], "fail"),
        ([permission("-1", None, v4=WORLD)], "fail"),
        ([permission(ports=(0, 65535), v6={"::/0": None})], "fail"),
        ([permission(v4={"0.0.0.0/1": None, "128.0.0.0/1": None})], "fail"),
        (
            [
                permission(v4={"0.0.0.0/1": None}),
                permission(ports=(1, 99), v4={"128.0.0.0/1": None}),
            ],
            "fail",
        ),
        ([permission("udp", v4=WORLD)], "pass"),
        ([permission("17", v4=WORLD)], "pass"),
        ([permission("icmp", (-1, -1), v4=WORLD)], "pass"),
        ([permission("icmp", (8, -1), v4=WORLD)], "pass"),
        ([permission("50", None, v4=WORLD)], "pass"),
        ([permission(ports=(23, 30), v4=WORLD)], "pass"),
        ([permission(v4={"0.0.0.0/1": None})], "pass"),
        ([permission(v4={"10.0.0.0/8": None}, v6={"fd00::/8": None})], "pass"),
        (
            [permission(prefix_lists=[{"PrefixListId": "pl-1"}], groups=[{"GroupId": "sg-2"}])],
            "pass",
        ),
        ([permission(ports=None, v4=WORLD)], "unknown"),
        ([permission(ports=(30, 20), v4=WORLD)], "unknown"),
        ([permission(v4={"not-a-network": None})], "unknown"),
        ([permission(v4={"::/0": None})], "unknown"),
    ],
)
def test_ssh_verdicts(permissions: list[dict[str, Any]], verdict: str) -> None:
    assert SSH.judge(group(*permissions))[0] == verdict


@pytest.mark.parametrize(
    ("permissions", "verdict"),
    [
        ([permission("-1", None, v6={"::/0": None})], "fail"),
        ([permission("udp", (1, 65535), v4=WORLD)], "fail"),
        ([permission(ports=(0, 999), v4=WORLD), permission(ports=(1000, 65535), v4=WORLD)], "fail"),
        ([permission(ports=(2, 65535), v4=WORLD)], "pass"),
        ([permission(ports=(0, 999), v4=WORLD), permission(ports=(1001, 65535), v4=WORLD)], "pass"),
        (
            [
                permission(ports=(0, 65535), v4={"10.0.0.0/8": None}),
                permission(ports=(443, 443), v4=WORLD),
            ],
            "pass",
        ),
    ],
)
def test_all_ports_verdicts(permissions: list[dict[str, Any]], verdict: str) -> None:
    assert ALL_PORTS.judge(group(*permissions))[0] == verdict


def changes(steps: Any) -> str:
    return "\n".join(
        f"{one.field}: {one.before} -> {one.after}" for step in steps for one in step.changes
    )


def test_only_the_internet_leaves_a_mixed_permission(apply: Any) -> None:
    legitimate = permission(v4={"10.0.0.0/8": "office"}, prefix_lists=[{"PrefixListId": "pl-1"}])
    mixed = permission(
        v4={"0.0.0.0/0": "everyone", "10.0.0.0/8": "office"},
        prefix_lists=[{"PrefixListId": "pl-1"}],
    )
    (step,) = SSH.fix(group(mixed), {})  # type: ignore[misc]
    assert step.action == "ec2:RevokeSecurityGroupIngress"
    assert step.call.params == {
        "GroupId": "sg-1",
        "IpPermissions": [
            {
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "everyone"}],
            }
        ],
    }
    assert step.undo[0].operation == "AuthorizeSecurityGroupIngress"
    assert step.undo[0].params == step.call.params
    after = apply(group(mixed), [step]).config["IpPermissions"]
    assert [one["IpRanges"] for one in after] == [legitimate["IpRanges"]]
    assert after[0]["PrefixListIds"] == legitimate["PrefixListIds"]


def test_a_range_keeps_its_other_ports_and_says_so() -> None:
    steps = SSH.fix(  # type: ignore[misc]
        group(permission(ports=(20, 30), v4={"0.0.0.0/0": "old"})),
        {"allowed_cidrs": ("10.0.0.0/8", "2001:db8::/32")},
    )
    add, remove = steps
    added = add.call.params["IpPermissions"]
    assert [(one["FromPort"], one["ToPort"]) for one in added] == [(20, 21), (23, 30), (22, 22)]
    assert added[0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0", "Description": "old"}]
    assert added[2]["IpRanges"][0]["CidrIp"] == "10.0.0.0/8"
    assert added[2]["Ipv6Ranges"][0]["CidrIpv6"] == "2001:db8::/32"
    assert [one["FromPort"] for one in remove.call.params["IpPermissions"]] == [20]
    text = changes(steps)
    assert "tcp 22 removed; 20-21, 23-30 stays open to 0.0.0.0/0" in text
    assert "inbound tcp 20-21 from 0.0.0.0/0: allowed, as part of tcp 20-30" in text
    assert "inbound tcp 22 from 10.0.0.0/8" in text


def test_every_protocol_goes_whole_and_says_so() -> None:
    everything = group(permission("-1", None, v4={"0.0.0.0/0": None, "10.0.0.0/8": None}))
    (remove,) = SSH.fix(everything, {})  # type: ignore[misc]
    assert remove.call.params["IpPermissions"] == [
        {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ]
    assert "every protocol and port from this source; nothing of it is added back" in changes(
        [remove]
    )
    add, _ = SSH.fix(everything, {"allowed_cidrs": ("203.0.113.0/24",)})  # type: ignore[misc]
    (added,) = add.call.params["IpPermissions"]
    assert (added["IpProtocol"], added["FromPort"], added["ToPort"]) == ("tcp", 22, 22)


def test_all_ports_gives_allowed_networks_the_same(apply: Any) -> None:
    wide = group(
        permission("-1", None, v4={"0.0.0.0/0": None}), permission(ports=(443, 443), v4=WORLD)
    )
    add, remove = ALL_PORTS.fix(wide, {"allowed_cidrs": ("10.0.0.0/8",)})  # type: ignore[misc]
    assert add.call.params["IpPermissions"][0]["IpProtocol"] == "-1"
    after = apply(wide, [add, remove]).config["IpPermissions"]
    assert {one["IpProtocol"] for one in after} == {"-1", "tcp"}
    assert [one["IpRanges"][0]["CidrIp"] for one in after if one.get("FromPort") == 443] == [
        "0.0.0.0/0"
    ]


def test_what_is_there_already_is_not_added_again(apply: Any) -> None:
    """EC2 refuses a duplicate, and a network already let in needs no second permission."""
    wide = group(
        permission(ports=(20, 30), v4=WORLD),
        permission(ports=(20, 21), v4={"0.0.0.0/0": "kept"}),
        permission("6", v4={"10.0.0.0/8": "office"}),
    )
    steps = SSH.fix(wide, {"allowed_cidrs": ("10.0.0.0/8", "10.1.0.0/16")})  # type: ignore[misc]
    added = steps[0].call.params["IpPermissions"]
    assert [(one["FromPort"], one["ToPort"]) for one in added] == [(23, 30)]
    assert SSH.judge(apply(wide, steps))[0] is Verdict.PASS


def test_allowed_networks_that_complete_the_internet_are_refused() -> None:
    nearly = group(permission(v4={"0.0.0.0/0": None, "128.0.0.0/1": None}))
    with pytest.raises(BadAnswer) as caught:
        SSH.fix(nearly, {"allowed_cidrs": ("0.0.0.0/1",)})  # type: ignore[misc]
    assert caught.value.field == "allowed_cidrs"


# --- the invariants, over generated groups ----------------------------------------------------

CIDRS = st.sampled_from(
    (
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "203.0.113.0/24",
        "::/0",
        "2001:db8::/32",
        "2000::/3",
    )
)
PORTS = st.sampled_from(
    [(22, 22), (20, 30), (0, 65535), (1, 65535), (443, 443), (3389, 3389), (22, 23), (0, 21)]
)
SHAPES = st.one_of(
    st.tuples(st.sampled_from(["tcp", "udp"]), PORTS),
    st.sampled_from([("-1", None), ("icmp", (-1, -1)), ("50", None)]),
)


@st.composite
def groups(draw: st.DrawFn) -> Resource:
    entries = []
    for protocol, ports in draw(st.lists(SHAPES, unique=True, max_size=4)):
        cidrs = draw(st.lists(CIDRS, unique=True, max_size=4))
        text = st.sampled_from([None, "why"])
        described = {cidr: draw(text) for cidr in cidrs}
        entries.append(
            permission(
                protocol,
                ports,
                v4={cidr: why for cidr, why in described.items() if ":" not in cidr},
                v6={cidr: why for cidr, why in described.items() if ":" in cidr},
                prefix_lists=draw(st.sampled_from([[], [{"PrefixListId": "pl-1"}]])),
            )
        )
    return group(*entries)


def reaches(resource: Resource, address: str, protocol: str, port: int) -> bool:
    """Whether one address may connect: read straight from EC2's words, not by the rule's code."""
    peer = ip_network(address)
    for entry in resource.config["IpPermissions"]:
        if entry["IpProtocol"] != "-1" and (
            entry["IpProtocol"] != protocol or not entry["FromPort"] <= port <= entry["ToPort"]
        ):
            continue
        cidrs = [one["CidrIp"] for one in entry.get("IpRanges", [])]
        cidrs += [one["CidrIpv6"] for one in entry.get("Ipv6Ranges", [])]
        if any(
            net.version == peer.version and peer.subnet_of(net)  # type: ignore[arg-type]
            for net in map(ip_network, cidrs)
        ):
            return True
    return False


ALLOWED = st.lists(
    st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "198.51.100.0/24", "2001:db8::/32"]), unique=True
)
INSIDERS = ("10.1.2.3", "203.0.113.9", "2001:db8::1")
OUTSIDERS = ("8.8.8.8", "200.1.1.1", "2600::1")


@settings(max_examples=150, deadline=None)
@given(before=groups(), allowed=ALLOWED, row=st.sampled_from([SSH, RDP, ALL_PORTS]))
def test_fix_closes_keeps_and_can_be_undone(
    before: Resource, allowed: list[str], row: Any, apply: Any, undo: Any, snapshot: Any
) -> None:
    values = {"allowed_cidrs": tuple(allowed)}
    steps = row.fix(before, values)
    assert bool(steps) == (row.judge(before)[0] is Verdict.FAIL)
    after = apply(before, steps)
    assert row.judge(after) == (Verdict.PASS, "")
    assert row.fix(after, values) == ()
    assert snapshot(undo(after, steps)) == snapshot(before)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(before=groups(), allowed=ALLOWED)
def test_ssh_fix_changes_nothing_else(before: Resource, allowed: list[str], apply: Any) -> None:
    assume(SSH.judge(before)[0] is Verdict.FAIL)
    steps = SSH.fix(before, {"allowed_cidrs": tuple(allowed)})  # type: ignore[misc]
    between = apply(before, steps[:-1])
    after = apply(before, steps)
    world = {"0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "2000::/3"}
    untouched = copy.deepcopy(before)
    for entry in untouched.config["IpPermissions"]:
        for ranges, field in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
            entry[ranges] = [one for one in entry[ranges] if one[field] not in world]
    everything = any(one["IpProtocol"] == "-1" for one in before.config["IpPermissions"])
    for address in (*INSIDERS, *OUTSIDERS):
        for protocol in ("tcp", "udp"):
            for port in (21, 22, 23, 443, 3389):
                now = reaches(after, address, protocol, port)
                # Named sources keep every port, also between the steps.
                if reaches(untouched, address, protocol, port):
                    assert now
                    assert reaches(between, address, protocol, port)
                # Other ports stay as they were, unless protocol -1 took them along.
                if (protocol, port) != ("tcp", 22) and not everything:
                    assert now == reaches(before, address, protocol, port)
                # Nothing opens that was closed.
                if now and address in OUTSIDERS:
                    assert reaches(before, address, protocol, port)
    for cidr in allowed:
        assert reaches(after, str(ip_network(cidr)[7]), "tcp", 22)
