"""The rules of Azure's networks: examples, what ARM makes of their calls, how to plant them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from hypothesis import strategies as st

from tasks.model import Call, Rule
from tasks.rules.network import Door
from tasks.rules.ports import AMPLIFIERS, EXPOSED, HIGH_RISK

NETWORK = "2024-05-01"
GROUP = "azure_network_security_group"
DOORS = {
    **{f"{GROUP}_{one.name}_not_open": one.doors for one in EXPOSED},
    f"{GROUP}_high_risk_ports_not_open": HIGH_RISK,
    f"{GROUP}_udp_amplifiers_not_open": AMPLIFIERS,
    f"{GROUP}_http_not_open": (Door("tcp", 80, 80),),
}
WORDS = st.text("abcXYZ 019._-:/()#,@[]+=&;{}!$*", min_size=1, max_size=30)
number = itertools.count()


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == "2024-05-01"
    rules = config["properties"]["securityRules"]
    name = call.target.rpartition("/securityRules/")[2]
    others = [rule for rule in rules if rule["name"].lower() != name.lower()]
    if call.operation == "DELETE":
        config["properties"]["securityRules"] = others
        return
    assert call.operation == "PUT"
    body = dict(call.params["properties"])
    _check_rule(body)
    for rule in others:
        theirs = rule["properties"]
        if (theirs["priority"], theirs["direction"]) == (body["priority"], body["direction"]):
            raise Refused("SecurityRuleConflict")
    new = {"id": call.target, "name": name, "properties": body}
    known = [rule["name"].lower() for rule in rules]
    if name.lower() in known:
        at = known.index(name.lower())
        rules[at] = {**rules[at], "properties": body}
    else:
        rules.append(new)


def _networks(body: Mapping[str, Any]) -> Iterator[IPv4Network | IPv6Network]:
    for side in ("source", "destination"):
        written = [body.get(f"{side}AddressPrefix"), *(body.get(f"{side}AddressPrefixes") or [])]
        for one in written:
            with suppress(ValueError):
                yield ip_network(one or "")


def _check_rule(body: Mapping[str, Any]) -> None:
    """What ARM refuses in a security rule."""
    if len({one.version for one in _networks(body)}) > 1:
        raise Refused("ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies")
    for side in ("source", "destination"):
        for one, many in (
            (f"{side}AddressPrefix", f"{side}AddressPrefixes"),
            (f"{side}PortRange", f"{side}PortRanges"),
        ):
            if body.get(one) and body.get(many):
                raise Refused(f"{one} and {many}")
        if not any(
            body.get(field)
            for field in (
                f"{side}AddressPrefix",
                f"{side}AddressPrefixes",
                f"{side}ApplicationSecurityGroups",
            )
        ):
            raise Refused(f"no {side}")
    if not 100 <= body["priority"] <= 4096 or not body["protocol"] or not body["access"]:
        raise Refused("SecurityRuleInvalid")
    if len(body.get("description", "")) > 140:
        raise Refused("description too long")
    if {"provisioningState", "etag"} & body.keys():
        raise Refused("read-only")


def snapshot(config: dict[str, Any]) -> Any:
    """Without the order of what has none in ARM."""
    rules = {one["name"]: one["properties"] for one in config["properties"]["securityRules"]}
    return {**config, "properties": {**config["properties"], "securityRules": rules}}


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    body = {"location": config["location"], "properties": config["properties"]}
    return str(
        cloud.put(f"Microsoft.Network/networkSecurityGroups/nsg{next(number)}", NETWORK, body)
    )


# --- generated ---------------------------------------------------------------------------------


@st.composite
def network_groups(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    """Groups whose first rule lets everybody in, so that no deny stands above it."""
    door = draw(st.sampled_from(DOORS[rule.id])) if rule.id in DOORS else None
    port = str(door.first) if door else "*"
    guilty = {
        "access": "Allow",
        "direction": "Inbound",
        "protocol": draw(st.sampled_from([door.protocol.capitalize() if door else "Tcp", "*"])),
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


# --- examples ----------------------------------------------------------------------------------


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


def open_door(door: Door) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    port, protocol = str(door.first), door.protocol.capitalize()
    return (
        [
            nsg(),
            nsg({"destinationPortRange": "443"}),
            nsg(
                {"access": "Deny", "protocol": "*", "destinationPortRange": "1-65000"},
                {"destinationPortRange": port, "protocol": protocol},
            ),
        ],
        [
            nsg({"destinationPortRange": port, "protocol": protocol}),
            nsg(
                {
                    "destinationPortRange": "*",
                    "sourceAddressPrefix": "Internet",
                    "protocol": protocol,
                }
            ),
        ],
    )


EXAMPLES: dict[str, Any] = {
    **{rule_id: (*open_door(doors[-1]), "properties") for rule_id, doors in DOORS.items()},
    f"{GROUP}_any_port_not_open": (
        [nsg(), nsg({"destinationPortRange": "443"})],
        [
            nsg({"destinationPortRange": "*", "protocol": "*"}),
            nsg({"destinationPortRange": "1-65535"}),
        ],
        "properties",
    ),
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers"
KINDS: dict[str, Any] = {
    "azure.network.security_group": {
        "id": f"{PREFIX}/microsoft.network/networksecuritygroups/nsg",
        "apply": apply,
        "snapshot": snapshot,
        "failing": network_groups,
        "plant": plant,
    },
}
