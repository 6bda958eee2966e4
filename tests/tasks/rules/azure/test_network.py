"""Network security groups: what gets in, by priority, and a closing that shuts out nobody else."""

from __future__ import annotations

import copy
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.errors import BadAnswer, BadInput
from tasks.model import Cloud, Config, Resource, Verdict
from tasks.rules import rule

SSH = rule("azure_network_security_group_ssh_not_open")
ANY_PORT = rule("azure_network_security_group_any_port_not_open")
ID = "/subscriptions/s/resourcegroups/rg/providers/microsoft.network/networksecuritygroups/nsg"
ASG = "/subscriptions/s/resourcegroups/rg/providers/microsoft.network/applicationsecuritygroups/web"


def entry(name: str, priority: int | None, **changed: Any) -> dict[str, Any]:
    properties = {
        "description": "kept",
        "protocol": "Tcp",
        "sourcePortRange": "*",
        "destinationPortRange": "22",
        "sourceAddressPrefix": "*",
        "destinationAddressPrefix": "*",
        "access": "Allow",
        "priority": priority,
        "direction": "Inbound",
        **changed,
    }
    body = {field: value for field, value in properties.items() if value is not None}
    return {"id": f"{ID}/securityRules/{name}", "name": name, "properties": body}


def several(*prefixes: str) -> dict[str, Any]:
    return {"sourceAddressPrefix": None, "sourceAddressPrefixes": list(prefixes)}


def from_asg() -> dict[str, Any]:
    return {"sourceAddressPrefix": None, "sourceApplicationSecurityGroups": [{"id": ASG}]}


def nsg(*rules: dict[str, Any]) -> Resource:
    return Resource(
        Cloud.AZURE,
        "s",
        "westeurope",
        "azure.network.security_group",
        ID,
        "nsg",
        Config(
            {
                "name": "nsg",
                "location": "westeurope",
                "properties": {"securityRules": copy.deepcopy(list(rules))},
            }
        ),
    )


DENY = {"access": "Deny", "protocol": "*"}


@pytest.mark.parametrize("source", ["*", "Internet", "internet", "Any", "0.0.0.0/0", "::/0"])
@pytest.mark.parametrize("ports", ["22", "20-30", "*", "0-65535"])
@pytest.mark.parametrize("protocol", ["Tcp", "TCP", "*"])
def test_open_in_every_spelling(source: str, ports: str, protocol: str) -> None:
    one = entry("r", 100, sourceAddressPrefix=source, destinationPortRange=ports, protocol=protocol)
    assert SSH.judge(nsg(one))[0] == "fail"


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ([entry("r", 100, **several("10.0.0.0/8", "0.0.0.0/0"))], "fail"),
        ([entry("r", 100, **several("0.0.0.0/1", "128.0.0.0/1"))], "fail"),
        (
            [
                entry("a", 100, sourceAddressPrefix="0.0.0.0/1"),
                entry("b", 200, sourceAddressPrefix="128.0.0.0/1"),
            ],
            "fail",
        ),
        (
            [entry("r", 100, destinationPortRange="", destinationPortRanges=["80", "20-23"])],
            "fail",
        ),
        ([entry("r", 100, destinationAddressPrefix="10.0.0.4")], "fail"),
        ([entry("r", 100, sourcePortRange="1024-65535")], "fail"),
        ([entry("r", 100, access="Deny")], "pass"),
        ([entry("r", 100, direction="Outbound")], "pass"),
        ([entry("r", 100, protocol="Udp")], "pass"),
        ([entry("r", 100, destinationPortRange="23-30")], "pass"),
        ([entry("r", 100, sourceAddressPrefix="VirtualNetwork")], "pass"),
        ([entry("r", 100, sourceAddressPrefix="AzureCloud.WestEurope")], "pass"),
        ([entry("r", 100, sourceAddressPrefix="0.0.0.0/1")], "pass"),
        ([entry("r", 100, **from_asg())], "pass"),
        # denies above
        ([entry("d", 100, **DENY), entry("r", 200)], "pass"),
        ([entry("d", 100, **DENY, sourceAddressPrefix="Internet"), entry("r", 200)], "pass"),
        ([entry("d", 100, **DENY, destinationPortRange="*"), entry("r", 200)], "pass"),
        (
            [
                entry("d", 100, **DENY, sourceAddressPrefix="0.0.0.0/1"),
                entry("e", 110, **DENY, sourceAddressPrefix="128.0.0.0/1"),
                entry("r", 200, sourceAddressPrefix="0.0.0.0/0"),
            ],
            "pass",
        ),
        (
            [
                entry("d", 100, **DENY, destinationAddressPrefix="10.0.0.0/24"),
                entry("r", 200, destinationAddressPrefix="10.0.0.4"),
            ],
            "pass",
        ),
        (
            [
                entry("d", 100, **DENY, destinationPortRange="1-22"),
                entry("r", 200, destinationPortRange="22-30"),
            ],
            "pass",
        ),
        # denies that do not shadow
        ([entry("d", 300, **DENY), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, sourceAddressPrefix="203.0.113.0/24"), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, sourceAddressPrefix="0.0.0.0/0"), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, sourceAddressPrefix="AzureCloud"), entry("r", 200)], "fail"),
        ([entry("d", 100, **(DENY | from_asg())), entry("r", 200)], "fail"),
        ([entry("d", 100, access="Deny", protocol="Udp"), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, destinationPortRange="23"), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, destinationAddressPrefix="10.0.0.4"), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, sourcePortRange="1-1023"), entry("r", 200)], "fail"),
        ([entry("d", 100, **DENY, direction="Outbound"), entry("r", 200)], "fail"),
        ([entry("a", 100), entry("d", 150, **DENY), entry("r", 200)], "fail"),
        # not to be judged
        ([entry("r", 100, destinationPortRange=None)], "unknown"),
        ([entry("r", 100, destinationPortRange="ssh")], "unknown"),
        ([entry("r", 100, destinationPortRange="30-20")], "unknown"),
        ([entry("r", 100, sourceAddressPrefix=None)], "unknown"),
        ([entry("r", 100, access="Maybe")], "unknown"),
        ([entry("r", None)], "unknown"),
        ([entry("r", 100, direction=None)], "unknown"),
        ([entry("r", 100), entry("R", 200)], "unknown"),
    ],
)
def test_ssh_verdicts(rules: list[dict[str, Any]], verdict: str) -> None:
    assert SSH.judge(nsg(*rules))[0] == verdict


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ([entry("r", 100, destinationPortRange="*", protocol="*")], "fail"),
        ([entry("r", 100, destinationPortRange="0-65535", protocol="Udp")], "fail"),
        (
            [
                entry("a", 100, destinationPortRange="0-1000"),
                entry("b", 110, destinationPortRange="1001-65535"),
            ],
            "fail",
        ),
        ([entry("r", 100, destinationPortRange="2-65535")], "pass"),
        (
            [
                entry("d", 100, **DENY, destinationPortRange="*"),
                entry("r", 200, destinationPortRange="*"),
            ],
            "pass",
        ),
        (
            [
                entry("d", 100, access="Deny", destinationPortRange="*"),
                entry("r", 200, destinationPortRange="*", protocol="*"),
            ],
            "fail",  # UDP gets in
        ),
        # A deny for some ports makes no harmless rule of it, denies for all of them do.
        ([entry("d", 100, **DENY), entry("r", 200, destinationPortRange="*")], "fail"),
        (
            [
                entry("d", 100, **DENY, destinationPortRange="0-3000"),
                entry("e", 110, **DENY, destinationPortRange="3001-65535"),
                entry("r", 200, destinationPortRange="*"),
            ],
            "pass",
        ),
    ],
)
def test_any_port_verdicts(rules: list[dict[str, Any]], verdict: str) -> None:
    assert ANY_PORT.judge(nsg(*rules))[0] == verdict


# --- fixes ------------------------------------------------------------------------------------


def fix(row: Any, resource: Resource, *allowed: str) -> Any:
    return row.fix(resource, {"allowed_cidrs": allowed})


def bodies(resource: Resource) -> dict[str, Any]:
    return {
        one["name"]: one["properties"] for one in resource.config["properties"]["securityRules"]
    }


def test_only_the_internet_leaves_a_mixed_rule() -> None:
    before = nsg(entry("ssh", 100, **several("0.0.0.0/0", "10.0.0.0/8", "203.0.113.0/24")))
    (step,) = fix(SSH, before)
    assert step.action == "Microsoft.Network/networkSecurityGroups/securityRules/write"
    assert (step.call.service, step.call.operation) == ("2024-05-01", "PUT")
    assert step.call.target == f"{ID}/securityRules/ssh"
    old = bodies(before)["ssh"]
    assert step.call.params["properties"] == old | {
        "sourceAddressPrefixes": ["10.0.0.0/8", "203.0.113.0/24"]
    }
    assert step.undo[0].params["properties"] == old


def test_a_rule_for_this_port_and_the_internet_alone_is_deleted(apply: Any, undo: Any) -> None:
    before = nsg(entry("ssh", 100))
    steps = fix(SSH, before)
    assert [(one.action.rpartition("/")[2], one.call.operation) for one in steps] == [
        ("delete", "DELETE")
    ]
    after = apply(before, steps)
    assert bodies(after) == {}
    assert undo(after, steps) == before


def test_allowed_networks_replace_the_internet_in_that_very_rule() -> None:
    (step,) = fix(SSH, nsg(entry("ssh", 100)), "10.0.0.0/8")
    body = step.call.params["properties"]
    assert body["sourceAddressPrefix"] == "10.0.0.0/8"
    assert body["priority"] == 100
    (step,) = fix(SSH, nsg(entry("ssh", 100)), "10.0.0.0/8", "203.0.113.0/24")
    body = step.call.params["properties"]
    assert body["sourceAddressPrefixes"] == ["10.0.0.0/8", "203.0.113.0/24"]
    assert "sourceAddressPrefix" not in body


def test_both_ip_versions_need_a_rule_each(apply: Any) -> None:
    before = nsg(entry("ssh", 100), entry("next", 101, destinationPortRange="443"))
    steps = fix(SSH, before, "10.0.0.0/8", "2001:db8::/32")
    after = bodies(apply(before, steps))
    assert after["ssh"]["sourceAddressPrefix"] == "10.0.0.0/8"
    assert after["ssh-suture-22"]["sourceAddressPrefix"] == "2001:db8::/32"
    assert after["ssh-suture-22"]["priority"] == 102


def test_a_range_is_split_and_others_keep_their_ports(apply: Any) -> None:
    wide = {"destinationPortRange": None, "destinationPortRanges": ["20-30", "443"]}
    before = nsg(entry("wide", 100, **wide, **several("0.0.0.0/0", "10.0.0.0/8")))
    steps = fix(SSH, before, "203.0.113.0/24")
    assert [step.call.target.rpartition("/")[2] for step in steps] == ["wide-suture-22", "wide"]
    after = bodies(apply(before, steps))
    assert after["wide"]["destinationPortRanges"] == ["20-21", "23-30", "443"]
    assert after["wide"]["sourceAddressPrefixes"] == ["0.0.0.0/0", "10.0.0.0/8"]
    assert after["wide-suture-22"]["sourceAddressPrefixes"] == ["10.0.0.0/8", "203.0.113.0/24"]
    assert after["wide-suture-22"]["destinationPortRange"] == "22"
    assert after["wide-suture-22"]["priority"] == 101
    rows = [(one.field, one.before, one.after) for step in steps for one in step.changes]
    assert rows[1] == (
        "rule wide: destination ports",
        "20-30, 443",
        "20-21, 23-30, 443, still open to 0.0.0.0/0; 22 closed to it",
    )


def test_every_protocol_is_said() -> None:
    (step,) = fix(SSH, nsg(entry("ssh", 100, protocol="*", destinationPortRange="22-23")))
    assert step.call.params["properties"]["protocol"] == "*"
    assert step.call.params["properties"]["destinationPortRange"] == "23"
    assert "for every protocol" in step.changes[0].after


def test_the_second_rule_crosses_no_deny() -> None:
    wide = {"destinationPortRange": "20-30", **several("0.0.0.0/0", "10.0.0.0/8")}
    before = nsg(
        entry("other", 200, destinationPortRange="443"),
        entry("wide", 201, **wide),
        entry("deny", 202, **DENY),
    )
    added, _ = fix(SSH, before)
    assert added.call.params["properties"]["priority"] == 199
    stuck = nsg(
        entry("deny", 100, **DENY, destinationAddressPrefix="10.0.0.4"),
        entry("wide", 101, **wide),
        entry("deny2", 102, **DENY),
    )
    with pytest.raises(BadInput, match="no free priority"):
        fix(SSH, stuck)
    harmless = nsg(
        entry("wide", 100, **wide), entry("deny", 101, **DENY, destinationPortRange="3389")
    )
    added, _ = fix(SSH, harmless)
    assert added.call.params["properties"]["priority"] == 102


def test_names_stay_unique_and_short(apply: Any) -> None:
    long = "r" * 80
    wide = {"destinationPortRange": "20-30"}
    before = nsg(
        entry(long, 100, **wide),
        entry("x-suture-22", 110, access="Deny", destinationPortRange="1"),
        entry("x", 120, **wide),
    )
    after = bodies(apply(before, fix(SSH, before, "10.0.0.0/8")))
    assert len(after) == 5
    assert "x-suture-22-2" in after
    assert all(len(name) <= 80 for name in after)


def test_a_shadowed_rule_is_left_alone() -> None:
    before = nsg(
        entry("open", 100, destinationPortRange="22", protocol="Tcp"),
        entry("deny", 150, **DENY),
        entry("shadowed", 200),
    )
    assert [step.call.target.rpartition("/")[2] for step in fix(SSH, before)] == ["open"]


def test_application_security_groups_of_the_destination_are_sent_again() -> None:
    target = {
        "destinationAddressPrefix": None,
        "destinationApplicationSecurityGroups": [{"id": ASG}],
    }
    (step,) = fix(SSH, nsg(entry("ssh", 100, **target)), "10.0.0.0/8")
    assert step.call.params["properties"]["destinationApplicationSecurityGroups"] == [{"id": ASG}]


def test_allowed_networks_that_complete_the_internet_are_refused() -> None:
    with pytest.raises(BadAnswer):
        fix(SSH, nsg(entry("ssh", 100, **several("0.0.0.0/0", "128.0.0.0/1"))), "0.0.0.0/1")
    with pytest.raises(BadAnswer):
        fix(SSH, nsg(entry("ssh", 100)), "::/0")


def test_allowed_networks_fit_the_destination() -> None:
    one_host = nsg(entry("ssh", 100, destinationAddressPrefix="10.1.0.4/32"))
    (step,) = fix(SSH, one_host, "10.0.0.0/8", "2001:db8::/32")
    assert step.call.params["properties"]["sourceAddressPrefix"] == "10.0.0.0/8"
    (step,) = fix(SSH, one_host, "2001:db8::/32")
    assert step.call.operation == "DELETE"


def test_read_only_properties_are_not_sent() -> None:
    (step,) = fix(SSH, nsg(entry("ssh", 100, provisioningState="Succeeded")), "10.0.0.0/8")
    for call in (step.call, *step.undo):
        assert "provisioningState" not in call.params["properties"]


# --- the invariants, over generated groups ----------------------------------------------------


def admits(resource: Resource, source: str, protocol: str, port: int, target: str) -> bool:
    """First match wins, then Azure's DenyAllInBound: read from ARM's words, not by the rule's code.

    ``source`` and ``target`` are addresses; a source may also be the name of a service tag.
    """
    rules = sorted(bodies(resource).values(), key=lambda one: one["priority"])
    for one in rules:
        if one["direction"] != "Inbound" or one["protocol"].lower() not in ("*", protocol):
            continue
        if not in_ports(port, one, "destinationPort"):
            continue
        if in_prefixes(source, one, "source") and in_prefixes(target, one, "destination"):
            return bool(one["access"] == "Allow")
    return False


def both(body: dict[str, Any], one: str) -> list[str]:
    return [
        *([body[one]] if body.get(one) else []),
        *(body.get(f"{one}es") or body.get(f"{one}s") or []),
    ]


def in_ports(port: int, body: dict[str, Any], side: str) -> bool:
    for written in both(body, f"{side}Range"):
        first, _, last = ("0-65535" if written == "*" else written).partition("-")
        if int(first) <= port <= int(last or first):
            return True
    return False


def in_prefixes(peer: str, body: dict[str, Any], side: str) -> bool:
    for prefix in both(body, f"{side}AddressPrefix"):
        if prefix in ("*", peer):
            return True
        if not peer[0].isdigit():
            continue
        if prefix == "Internet":
            if ip_address(peer).is_global or peer.startswith("203.0.113"):
                return True
        elif prefix[0].isdigit() or prefix.startswith(":"):
            net = ip_network(prefix)
            if ip_address(peer).version == net.version and ip_address(peer) in net:
                return True
    return False


LEGITIMATE = ("10.0.0.0/8", "203.0.113.0/24", "2001:db8::/32")
SOURCES = st.one_of(
    st.sampled_from(
        ["*", "Internet", "0.0.0.0/0", "VirtualNetwork", "AzureCloud", "10.0.0.0/8"]
    ).map(lambda one: {"sourceAddressPrefix": one}),
    st.lists(
        st.sampled_from(["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "203.0.113.0/24"]),
        unique=True,
        min_size=1,
        max_size=4,
    ).map(lambda some: several(*some)),
    st.lists(st.sampled_from(["::/0", "2001:db8::/32"]), unique=True, min_size=1).map(
        lambda some: several(*some)
    ),
)
PORTS = st.one_of(
    st.sampled_from(["22", "20-30", "*", "443", "0-65535"]).map(
        lambda one: {"destinationPortRange": one}
    ),
    st.lists(st.sampled_from(["22", "20-23", "443", "3389"]), unique=True, min_size=2).map(
        lambda some: {"destinationPortRange": None, "destinationPortRanges": some}
    ),
)


@st.composite
def groups(draw: st.DrawFn) -> Resource:
    priorities = draw(st.lists(st.integers(100, 130), unique=True, max_size=5))
    rules = []
    for number, priority in enumerate(priorities):
        sources = draw(SOURCES)
        v6 = any(":" in one for one in sources.get("sourceAddressPrefixes", []))
        rules.append(
            entry(
                f"rule-{number}",
                priority,
                **sources,
                **draw(PORTS),
                access=draw(st.sampled_from(["Allow", "Allow", "Deny"])),
                protocol=draw(st.sampled_from(["Tcp", "Udp", "*"])),
                direction=draw(st.sampled_from(["Inbound", "Inbound", "Inbound", "Outbound"])),
                destinationAddressPrefix="*" if v6 else draw(st.sampled_from(["*", "172.16.0.4"])),
            )
        )
    return nsg(*rules)


ALLOWED = st.lists(st.sampled_from(["10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32"]), unique=True)
PEERS = ("10.1.2.3", "203.0.113.9", "2001:db8::1", "VirtualNetwork", "AzureCloud")
INTERNET = ("*", "Internet", "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0")
WORLD = ("8.8.8.8", "200.1.1.1", "2600::1")


@settings(max_examples=150, deadline=None)
@given(before=groups(), allowed=ALLOWED, row=st.sampled_from([SSH, ANY_PORT]))
def test_fix_closes_and_can_be_undone(
    before: Resource, allowed: list[str], row: Any, apply: Any, undo: Any, snapshot: Any
) -> None:
    try:
        steps = fix(row, before, *allowed)
    except BadInput as stuck:
        assume("priority" not in stuck.problem)
        raise
    assert bool(steps) == (row.judge(before)[0] is Verdict.FAIL)
    after = apply(before, steps)
    assert row.judge(after) == (Verdict.PASS, "")
    assert fix(row, after, *allowed) == ()
    assert snapshot(undo(after, steps)) == snapshot(before)


@settings(max_examples=150, deadline=None)
@given(before=groups(), allowed=ALLOWED)
def test_ssh_fix_changes_nothing_else(before: Resource, allowed: list[str], apply: Any) -> None:
    assume(SSH.judge(before)[0] is Verdict.FAIL)
    try:
        steps = fix(SSH, before, *allowed)
    except BadInput:
        assume(False)
    after, named = apply(before, steps), without_internet(before)
    changed = {step.call.target.rpartition("/")[2] for step in steps}
    every_protocol = any(bodies(before).get(name, {}).get("protocol") == "*" for name in changed)
    for target in ("172.16.0.4", "172.16.0.5"):
        for port in (21, 22, 23, 443, 3389):
            for protocol in ("tcp", "udp"):
                for peer in (*PEERS, *WORLD):
                    was = admits(before, peer, protocol, port, target)
                    now = admits(after, peer, protocol, port, target)
                    if now and peer in WORLD:
                        assert was, "nothing opens"
                    if port != 22 or (protocol == "udp" and not every_protocol):
                        assert now == was, "no other port changes for anybody"
        # Whoever a rule names beside the internet keeps the port.
        for peer in ("10.1.2.3", "203.0.113.9", "2001:db8::1", "VirtualNetwork"):
            if admits(named, peer, "tcp", 22, target):
                assert admits(after, peer, "tcp", 22, target), peer


def without_internet(resource: Resource) -> Resource:
    """The group as it would be had nobody named the internet in an allow rule."""
    left = copy.deepcopy(resource)
    for body in bodies(left).values():
        if body["access"] == "Allow":
            kept = [one for one in both(body, "sourceAddressPrefix") if one not in INTERNET]
            body |= {"sourceAddressPrefix": "", "sourceAddressPrefixes": kept}
    return left


@settings(max_examples=100, deadline=None)
@given(before=groups())
def test_verdicts_agree_with_the_packets(before: Resource) -> None:
    """Pass: not all of the sampled internet gets in. Fail: some of it does."""
    targets = ("172.16.0.4", "172.16.0.5")
    reached = {peer for peer in WORLD for one in targets if admits(before, peer, "tcp", 22, one)}
    if SSH.judge(before)[0] is Verdict.PASS:
        assert "2600::1" not in reached
        assert not {"8.8.8.8", "200.1.1.1"} <= reached
    else:
        assert reached
