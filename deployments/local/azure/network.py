"""Microsoft.Network: security groups and their rules, with ETags and asynchronous writes."""

from __future__ import annotations

import copy
import ipaddress
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from deployments.local.azure.operations import OperationFailure
from deployments.local.azure.protocol import (
    ArmError,
    ArmPath,
    ArmRequest,
    Reply,
    ResourceKind,
    bad_content,
    body_object,
    check_preconditions,
    properties_of,
    resource_not_found,
    tags_of,
)
from deployments.local.azure.tenant import Resource, Tenant

API_VERSIONS = (
    "2026-03-01",
    "2025-05-01",
    "2025-03-01",
    "2025-01-01",
    "2024-10-01",
    "2024-07-01",
    "2024-05-01",
    "2024-03-01",
    "2024-01-01",
    "2023-11-01",
    "2023-09-01",
    "2023-06-01",
    "2023-05-01",
    "2023-04-01",
    "2023-02-01",
    "2022-11-01",
    "2022-07-01",
    "2022-01-01",
    "2021-08-01",
    "2021-02-01",
    "2020-11-01",
)
GROUP_TYPE = "Microsoft.Network/networkSecurityGroups"
RULE_TYPE = f"{GROUP_TYPE}/securityRules"
DEFAULT_RULE_TYPE = f"{GROUP_TYPE}/defaultSecurityRules"

# Each field of a rule comes alone or as a list: (alone, list).
PORT_FIELDS = (
    ("sourcePortRange", "sourcePortRanges"),
    ("destinationPortRange", "destinationPortRanges"),
)
ADDRESS_FIELDS = (
    ("sourceAddressPrefix", "sourceAddressPrefixes"),
    ("destinationAddressPrefix", "destinationAddressPrefixes"),
)
ASG_FIELDS = {
    "sourceAddressPrefix": "sourceApplicationSecurityGroups",
    "destinationAddressPrefix": "destinationApplicationSecurityGroups",
}
CHOICES = {
    "protocol": ("Tcp", "Udp", "Icmp", "Esp", "Ah", "*"),
    "access": ("Allow", "Deny"),
    "direction": ("Inbound", "Outbound"),
}
WRITABLE = {
    "description",
    "priority",
    *CHOICES,
    *(name for pair in (*PORT_FIELDS, *ADDRESS_FIELDS) for name in pair),
    *ASG_FIELDS.values(),
}
READ_ONLY = {"provisioningState"}
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?")
# What the cloud adds to every group: (name, description, priority, direction, access, from, to).
_DEFAULTS = (
    ("AllowVnetInBound", "Allow inbound traffic from all VMs in VNET",
     65000, "Inbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", "Allow inbound traffic from azure load balancer",
     65001, "Inbound", "Allow", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", "Deny all inbound traffic",
     65500, "Inbound", "Deny", "*", "*"),
    ("AllowVnetOutBound", "Allow outbound traffic from all VMs to all VMs in VNET",
     65000, "Outbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", "Allow outbound traffic from all VMs to Internet",
     65001, "Outbound", "Allow", "*", "Internet"),
    ("DenyAllOutBound", "Deny all outbound traffic",
     65500, "Outbound", "Deny", "*", "*"),
)  # fmt: skip


def new_etag() -> str:
    return f'W/"{uuid.uuid4()}"'


@dataclass(kw_only=True)
class SecurityGroup(Resource):
    """A network security group. ``rules`` is keyed by lower-case name: (name, properties).

    One ETag stands for the group and for all its rules, as in Azure: any write changes them all.
    """

    type: str = GROUP_TYPE
    guid: str = ""
    etag: str = field(default_factory=new_etag)
    state: str = "Succeeded"
    rules: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def render(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "id": self.id,
            "etag": self.etag,
            "type": self.type,
            "location": self.location,
            "tags": dict(self.tags),
            "properties": {
                "provisioningState": self.state,
                "resourceGuid": self.guid,
                "securityRules": [self.render_rule(key) for key in self.rules],
                "defaultSecurityRules": self.render_default_rules(),
            },
        }

    def render_rule(self, key: str) -> dict[str, Any]:
        name, properties = self.rules[key]
        return {
            "name": name,
            "id": f"{self.id}/securityRules/{name}",
            "etag": self.etag,
            "type": RULE_TYPE,
            "properties": {"provisioningState": self.state, **properties},
        }

    def render_default_rules(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "id": f"{self.id}/defaultSecurityRules/{name}",
                "etag": self.etag,
                "type": DEFAULT_RULE_TYPE,
                "properties": {
                    "provisioningState": self.state,
                    "description": description,
                    "protocol": "*",
                    "sourcePortRange": "*",
                    "destinationPortRange": "*",
                    "sourceAddressPrefix": source,
                    "destinationAddressPrefix": destination,
                    "access": access,
                    "priority": priority,
                    "direction": direction,
                    **{many: [] for _, many in (*PORT_FIELDS, *ADDRESS_FIELDS)},
                },
            }
            for name, description, priority, direction, access, source, destination in _DEFAULTS
        ]


def checked_rule(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """A rule's properties as the provider keeps them, or 400 with the provider's reason."""
    unknown = set(given) - WRITABLE - READ_ONLY
    if unknown:
        raise _bad_format(f"Could not find member '{min(unknown)}' on object of a rule.")
    for required in (*CHOICES, "priority"):
        if given.get(required) is None:
            raise _bad_format(f"Required property '{required}' not found in JSON. Rule {name}.")
    for choice, values in CHOICES.items():
        _check_choice(choice, given[choice], values)
    _check_priority(given["priority"])
    rule = {
        key: given[key]
        for key in ("description", *CHOICES, "priority")
        if given.get(key) is not None
    }
    for alone, many in PORT_FIELDS:
        rule |= _one_or_many(name, given, alone, many, _check_port_range)
    for alone, many in ADDRESS_FIELDS:
        if groups := given.get(ASG_FIELDS[alone]):
            rule |= {ASG_FIELDS[alone]: groups, many: []}
        else:
            rule |= _one_or_many(name, given, alone, many, _check_address_prefix)
    _check_one_family(name, rule)
    return rule


def _check_choice(field_name: str, value: object, values: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value.lower() not in {v.lower() for v in values}:
        raise _bad_format(f"Error converting value to {field_name}: allowed are {list(values)}.")


def _check_priority(priority: object) -> None:
    if not isinstance(priority, int) or isinstance(priority, bool) or not 100 <= priority <= 4096:
        raise ArmError(
            400,
            "SecurityRuleInvalidPriority",
            f"Security rule has invalid Priority. Value provided: {priority} "
            "Allowed range 100-4096.",
        )


def _one_or_many(name: str, given: dict[str, Any], alone: str, many: str, check: Any) -> dict:
    """One field pair: exactly one of the two forms must say something."""
    single, several = given.get(alone), given.get(many) or []
    if not isinstance(several, list) or not all(isinstance(value, str) for value in several):
        raise _bad_format(f"'{many}' must be a list of strings.")
    if single is not None and several:
        raise ArmError(
            400,
            "SecurityRuleInvalidParameters",
            f"Security rule {name} may specify {alone} or {many}, not both.",
        )
    if not single and not several:
        raise ArmError(
            400,
            "SecurityRuleParameterMissing",
            f"Security rule {name} must specify {alone} or {many}.",
        )
    if len({value.lower() for value in several}) != len(several):
        raise ArmError(
            400,
            "SecurityRuleParameterContainsDuplicateValue",
            f"Security rule parameter {many} for rule {name} has duplicate values.",
        )
    for value in several or [single]:
        check(name, alone, value, in_list=bool(several))
    return {many: list(several)} if several else {alone: single, many: []}


def _check_port_range(name: str, field_name: str, value: object, *, in_list: bool) -> None:
    if value == "*" and not in_list:
        return
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", value) if isinstance(value, str) else None
    first = int(match[1]) if match else -1
    last = int(match[2] or first) if match else -1
    if not 0 <= first <= last <= 65535:
        raise ArmError(
            400,
            "SecurityRuleInvalidPortRange",
            f"Security rule has invalid Port range. Value provided: {value}. Value should be an "
            "integer OR integer range with '-' delimiter. Valid range 0-65535.",
        )


def _check_address_prefix(name: str, field_name: str, value: object, *, in_list: bool) -> None:
    text = value if isinstance(value, str) else ""
    if _network(text) is not None:
        return
    if text != "*" and not _TAG.fullmatch(text):
        raise ArmError(
            400,
            "SecurityRuleInvalidAddressPrefix",
            f"Security rule has invalid Address prefix. Value provided: {value}.",
        )
    if in_list:
        raise ArmError(
            400,
            "SecurityRuleParameterContainsUnsupportedValue",
            f"Security rule parameter {field_name} for rule {name} cannot specify existing "
            "VIRTUALNETWORK, INTERNET, AZURELOADBALANCER, '*' or system tags. "
            f"Unsupported value used: {text}.",
        )


def _check_one_family(name: str, rule: dict[str, Any]) -> None:
    """IPv4 and IPv6 never share a rule: the network provider refuses it."""
    given = [
        value
        for alone, many in ADDRESS_FIELDS
        for value in ([rule[alone]] if alone in rule else rule[many])
    ]
    if len({network.version for value in given if (network := _network(value))}) > 1:
        raise ArmError(
            400,
            "ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies",
            f"Security rule {name} contains IP addresses or prefixes that belong to different "
            "address families.",
        )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def check_conflicts(rules: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """No two rules of a group may share priority and direction."""
    seen: dict[tuple[int, str], str] = {}
    for name, rule in rules.values():
        place = (rule["priority"], rule["direction"].lower())
        if place in seen:
            raise ArmError(
                400,
                "SecurityRuleConflict",
                f"Security rule {name} conflicts with rule {seen[place]}. Rules cannot have the "
                "same Priority and Direction. To learn more, see aka.ms/nsgrules.",
            )
        seen[place] = name


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ArmError(
            400,
            "InvalidResourceName",
            f"Resource name {name} is invalid. The name can be up to 80 characters long. It must "
            "begin with a word character, and it must end with a word character or with '_'.",
        )


def _bad_format(message: str) -> ArmError:
    return ArmError(
        400,
        "InvalidRequestFormat",
        "Cannot parse the request.",
        details=[{"code": "InvalidJson", "message": message}],
    )


class _GroupWrites(ResourceKind):
    """What groups and rules share: a write changes the group and runs as an operation."""

    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant, resource_manager: str) -> None:
        self.tenant = tenant
        self.resource_manager = resource_manager

    def find(self, path: str) -> SecurityGroup | None:
        found = self.tenant.resource(path)
        return found if isinstance(found, SecurityGroup) else None

    def start(self, request: ArmRequest, group: SecurityGroup, before: SecurityGroup | None) -> Any:
        """Run what was just written as an operation; ``before`` is the group to fall back to."""
        group.state, group.etag = "Updating", new_etag()

        def finish(failure: OperationFailure | None) -> None:
            group.etag = new_etag()
            group.state = "Failed" if failure else "Succeeded"
            if not failure or failure.keeps_change:
                return
            if before is None:
                self.tenant.remove_resource(group)
            else:
                group.rules, group.tags = before.rules, before.tags

        return self.begin(request, group, finish)

    def begin(self, request: ArmRequest, group: SecurityGroup, finish: Any) -> dict[str, str]:
        """Begin the operation and give the headers that tell of it."""
        operations = self.tenant.operations
        operation = operations.begin(
            group.id.lower(),
            request.caller.object_id,
            finish,
            lambda: Reply(204),
            self.tenant.faults.take_failure(request.path.key),
        )
        place = (
            f"{self.resource_manager}/subscriptions/{request.path.subscription}/providers"
            f"/Microsoft.Network/locations/{group.location}"
        )
        tail = f"{operation.id}?api-version={request.query['api-version']}"
        headers = {"Azure-AsyncOperation": f"{place}/operations/{tail}", **operations.headers()}
        if request.method == "DELETE":
            headers["Location"] = f"{place}/operationResults/{tail}"
        return headers


class SecurityGroups(_GroupWrites):
    """networkSecurityGroups."""

    type = GROUP_TYPE

    def get(self, request: ArmRequest) -> Reply:
        group = self._require(request.path)
        return Reply(200, group.render(), {"ETag": group.etag})

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        path = request.path
        return [x.render() for x in self.tenant.resources(path.subscription, path.group, self.type)]

    def put(self, request: ArmRequest) -> Reply:
        path, body = request.path, body_object(request)
        check_name(path.name)
        group = self.find(path.key)
        check_preconditions(request, group.etag if group else None, path.text)
        location = _location(body)
        _check_location(path, group, location)
        rules = _rules_of(properties_of(body))
        tags = tags_of(body)
        before = copy.deepcopy(group)
        if group is None:
            group = SecurityGroup(
                id=_stored_id(self.tenant, path),
                name=path.name,
                location=location,
                guid=str(uuid.uuid4()),
            )
            self.tenant.add_resource(group)
        group.rules, group.tags = rules, tags
        headers = self.start(request, group, before)
        return Reply(200 if before else 201, group.render(), headers)

    def patch(self, request: ArmRequest) -> Reply:
        """Tags only, and at once: Azure runs no operation for them."""
        group, body = self._require(request.path), body_object(request)
        check_preconditions(request, group.etag, request.path.text)
        if set(body) - {"tags"}:
            raise bad_content("Only tags can be patched on a network security group.")
        group.tags, group.etag = tags_of(body), new_etag()
        return Reply(200, group.render(), {"ETag": group.etag})

    def delete(self, request: ArmRequest) -> Reply:
        group = self.find(request.path.key)
        if group is None:
            return Reply(204)
        check_preconditions(request, group.etag, request.path.text)
        group.state = "Deleting"

        def finish(failure: OperationFailure | None) -> None:
            group.state, group.etag = "Failed", new_etag()
            if not failure:
                self.tenant.remove_resource(group)

        return Reply(202, None, self.begin(request, group, finish))

    def _require(self, path: ArmPath) -> SecurityGroup:
        group = self.find(path.key)
        if group is None:
            raise resource_not_found(path)
        return group


class SecurityRules(_GroupWrites):
    """networkSecurityGroups/securityRules."""

    type = RULE_TYPE

    def get(self, request: ArmRequest) -> Reply:
        group = self._parent(request.path)
        key = _require_rule(group.rules, request.path)
        return Reply(200, group.render_rule(key), {"ETag": group.etag})

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        group = self._parent(request.path)
        return [group.render_rule(key) for key in group.rules]

    def put(self, request: ArmRequest) -> Reply:
        path, group = request.path, self._parent(request.path)
        check_name(path.name)
        key = path.name.lower()
        existed = key in group.rules
        check_preconditions(request, group.etag if existed else None, path.text)
        name = group.rules[key][0] if existed else path.name
        rule = checked_rule(name, properties_of(body_object(request)))
        rules = {**group.rules, key: (name, rule)}
        check_conflicts(rules)
        before = copy.deepcopy(group)
        group.rules = rules
        headers = self.start(request, group, before)
        return Reply(200 if existed else 201, group.render_rule(key), headers)

    def delete(self, request: ArmRequest) -> Reply:
        group, key = self._parent(request.path), request.path.name.lower()
        if key not in group.rules:
            return Reply(204)
        check_preconditions(request, group.etag, request.path.text)
        before = copy.deepcopy(group)
        group.rules = {name: rule for name, rule in group.rules.items() if name != key}
        return Reply(202, None, self.start(request, group, before))

    def _parent(self, path: ArmPath) -> SecurityGroup:
        group = self.find(path.parent)
        if group is None:
            raise ArmError(
                404,
                "ParentResourceNotFound",
                "Can not perform requested operation on nested resource. "
                f"Parent resource '{path.names[0]}' not found.",
            )
        return group


class DefaultSecurityRules(SecurityRules):
    """networkSecurityGroups/defaultSecurityRules: read only."""

    type = DEFAULT_RULE_TYPE
    put = ResourceKind.put
    delete = ResourceKind.delete

    def get(self, request: ArmRequest) -> Reply:
        wanted = request.path.name.lower()
        for rule in self.members(request):
            if rule["name"].lower() == wanted:
                return Reply(200, rule)
        raise _rule_not_found(request.path)

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        return self._parent(request.path).render_default_rules()


def _rules_of(properties: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    rules: dict[str, tuple[str, dict[str, Any]]] = {}
    for entry in properties.get("securityRules") or []:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise _bad_format("Every security rule needs a name.")
        check_name(name)
        if name.lower() in rules:
            raise ArmError(
                400, "DuplicateResourceName", f"Security rule {name} is given more than once."
            )
        rules[name.lower()] = (name, checked_rule(name, properties_of(entry)))
    check_conflicts(rules)
    return rules


def _location(body: dict[str, Any]) -> str:
    location = body.get("location")
    if not isinstance(location, str) or not location.strip():
        raise ArmError(
            400, "LocationRequired", "The location property is required for this definition."
        )
    return location.replace(" ", "").lower()


def _check_location(path: ArmPath, existing: Resource | None, location: str) -> None:
    if existing and existing.location != location:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{path.name}' already exists in location '{existing.location}' in "
            f"resource group '{path.group}'. A resource with the same name cannot be created in "
            f"location '{location}'. Please select a new resource name.",
        )


def _stored_id(tenant: Tenant, path: ArmPath) -> str:
    group = tenant.group(path.subscription, path.group)
    return f"{group.id}/providers/{GROUP_TYPE}/{path.name}"


def _require_rule(rules: dict[str, Any], path: ArmPath) -> str:
    key = path.name.lower()
    if key not in rules:
        raise _rule_not_found(path)
    return key


def _rule_not_found(path: ArmPath) -> ArmError:
    return ArmError(404, "NotFound", f"Resource {path.text} not found.", details=[])
