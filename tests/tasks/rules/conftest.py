"""What the clouds would make of a rule's calls: small pure simulators, strict where the API is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest

from tasks.model import Call, Cloud, Config, Resource, Step

SOURCES = (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"), ("PrefixListIds", "PrefixListId"))


class Refused(Exception):
    """The simulated API's error."""


# --- EC2 --------------------------------------------------------------------------------------


def _entry_key(permission: Mapping[str, Any]) -> tuple[Any, ...]:
    return permission["IpProtocol"], permission.get("FromPort"), permission.get("ToPort")


def flat(permissions: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], str | None]:
    """IpPermissions as {(protocol, from, to, field, source): description}."""
    rows: dict[tuple[Any, ...], str | None] = {}
    for permission in permissions:
        for ranges, field in SOURCES:
            for source in permission.get(ranges, []):
                key = (*_entry_key(permission), field, source[field])
                if key in rows:
                    raise Refused("InvalidPermission.Duplicate")
                rows[key] = source.get("Description")
    return rows


def nested(rows: Mapping[tuple[Any, ...], str | None]) -> list[dict[str, Any]]:
    """The inverse of flat: merged by protocol and ports, as EC2 describes a group."""
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (protocol, first, last, field, source), description in rows.items():
        entry = entries.setdefault((protocol, first, last), {"IpProtocol": protocol})
        if first is not None:
            entry |= {"FromPort": first, "ToPort": last}
        ranges = next(ranges for ranges, known in SOURCES if known == field)
        text = {} if description is None else {"Description": description}
        entry.setdefault(ranges, []).append({field: source, **text})
    return list(entries.values())


def _ec2(config: dict[str, Any], call: Call) -> None:
    if call.operation.endswith("EbsEncryptionByDefault"):
        config["EbsEncryptionByDefault"] = call.operation.startswith("Enable")
        return
    assert call.params["GroupId"] == config["GroupId"]
    rows, named = flat(config["IpPermissions"]), flat(call.params["IpPermissions"])
    if not named:
        raise Refused("MissingParameter")
    if call.operation == "AuthorizeSecurityGroupIngress":
        if rows.keys() & named.keys():
            raise Refused("InvalidPermission.Duplicate")
        rows |= named
    elif call.operation == "RevokeSecurityGroupIngress":
        if named.keys() - rows.keys():
            raise Refused("InvalidPermission.NotFound")
        rows = {key: text for key, text in rows.items() if key not in named}
    else:
        raise Refused(call.operation)
    config["IpPermissions"] = nested(rows)


# --- S3, IAM ----------------------------------------------------------------------------------


def _s3(config: dict[str, Any], call: Call) -> None:
    assert call.params["Bucket"] == config["Name"]
    match call.operation:
        case "PutPublicAccessBlock":
            config["PublicAccessBlock"] = dict(call.params["PublicAccessBlockConfiguration"])
        case "DeletePublicAccessBlock":
            config["PublicAccessBlock"] = None
        case "PutBucketVersioning":
            config["Versioning"] = {
                **config["Versioning"],
                **call.params["VersioningConfiguration"],
            }
        case "PutBucketPolicy":
            config["Policy"] = json.loads(call.params["Policy"])
        case "DeleteBucketPolicy":
            config["Policy"] = None
        case other:
            raise Refused(other)


_POLICY_DEFAULTS = {
    "MinimumPasswordLength": 6,
    "RequireSymbols": False,
    "RequireNumbers": False,
    "RequireUppercaseCharacters": False,
    "RequireLowercaseCharacters": False,
    "AllowUsersToChangePassword": False,
}
_POLICY_OPTIONAL = {"MaxPasswordAge", "PasswordReusePrevention", "HardExpiry"}


def _iam(config: dict[str, Any], call: Call) -> None:
    if call.operation == "DeleteAccountPasswordPolicy":
        config["PasswordPolicy"] = None
        return
    assert call.operation == "UpdateAccountPasswordPolicy"
    if call.params.keys() - _POLICY_DEFAULTS.keys() - _POLICY_OPTIONAL:
        raise Refused("ValidationError")
    age = call.params.get("MaxPasswordAge")
    config["PasswordPolicy"] = {
        **_POLICY_DEFAULTS,
        **call.params,
        "ExpirePasswords": age is not None,
    }


# --- ARM --------------------------------------------------------------------------------------


def _storage(config: dict[str, Any], call: Call) -> None:
    assert (call.operation, call.service) == ("PATCH", "2023-05-01")
    properties = config["properties"]
    for name, value in call.params["properties"].items():
        if value is None:
            raise Refused("what null does is not documented")
        properties[name] = value


def _network(config: dict[str, Any], call: Call) -> None:
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


_APIS: dict[str, Callable[[dict[str, Any], Call], None]] = {
    "aws.ec2": _ec2,
    "aws.s3": _s3,
    "aws.iam": _iam,
    "azure.network": _network,
    "azure.storage": _storage,
}


def _apply(resource: Resource, call: Call) -> Resource:
    assert call.cloud is resource.cloud
    if call.cloud is Cloud.AWS:
        assert call.service == resource.kind.split(".")[1]
    else:
        assert call.target.startswith(resource.id)
    config = copy.deepcopy(resource.config.as_dict())
    _APIS[resource.kind.rpartition(".")[0]](config, call)
    return replace(resource, config=Config(config))


@pytest.fixture(scope="session")
def apply() -> Callable[[Resource, Iterable[Step]], Resource]:
    """Do every step's call."""

    def do(resource: Resource, steps: Iterable[Step]) -> Resource:
        for step in steps:
            resource = _apply(resource, step.call)
        return resource

    return do


@pytest.fixture(scope="session")
def undo() -> Callable[[Resource, Iterable[Step]], Resource]:
    """Take every step back, the last one first."""

    def do(resource: Resource, steps: Iterable[Step]) -> Resource:
        for step in reversed(tuple(steps)):
            for call in step.undo:
                resource = _apply(resource, call)
        return resource

    return do


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Resource], Any]:
    """A resource's configuration without the order of what has none in the cloud."""

    def take(resource: Resource) -> Any:
        config = copy.deepcopy(resource.config.as_dict())
        if "IpPermissions" in config:
            config["IpPermissions"] = flat(config["IpPermissions"])
        if resource.kind == "azure.network.security_group":
            rules = config["properties"]["securityRules"]
            config["properties"]["securityRules"] = {
                one["name"]: one["properties"] for one in rules
            }
        return config

    return take
