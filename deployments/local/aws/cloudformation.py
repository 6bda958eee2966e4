"""CloudFormation: stacks of IAM roles and policies, made by the calls the caller could make.

moto's own takes any template and any caller. Here a resource is IAM calls that go through the gate
with the caller's permissions, and everything that is not emulated is refused. Stacks are finished
when CreateStack answers; in AWS they take minutes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from deployments.local.aws.calls import Call
from deployments.local.aws.errors import Refusal, Response
from deployments.local.aws.stack_template import InvalidTemplate, Template, read_template

NAMESPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
ACCEPTED = {
    "CreateStack": {
        "Action",
        "Version",
        "StackName",
        "TemplateBody",
        "Parameters",
        "Capabilities",
        "EnableTerminationProtection",
    },
    "DescribeStacks": {"Action", "Version", "StackName"},
    "DescribeStackEvents": {"Action", "Version", "StackName"},
    "DeleteStack": {"Action", "Version", "StackName"},
    "UpdateTerminationProtection": {
        "Action",
        "Version",
        "StackName",
        "EnableTerminationProtection",
    },
}
_STACK = "AWS::CloudFormation::Stack"

# An IAM call as the caller: operation, parameters -> the answer. Raises Refusal.
Iam = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


class Failed(Exception):
    """A resource that could not be made, with CloudFormation's reason."""


@dataclass
class Stack:
    id: str
    name: str
    template: Template
    capabilities: list[str]
    created: str
    status: str = "CREATE_IN_PROGRESS"
    reason: str = ""
    protected: bool = False
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    undo: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    events: list[dict[str, str]] = field(default_factory=list)
    outputs: list[dict[str, str]] = field(default_factory=list)

    def note(self, logical_id: str, kind: str, status: str, reason: str = "") -> None:
        self.events.insert(
            0,
            {
                "StackId": self.id,
                "EventId": str(uuid.uuid4()),
                "StackName": self.name,
                "LogicalResourceId": logical_id,
                "PhysicalResourceId": self.made.get(logical_id, {}).get("Ref", ""),
                "ResourceType": kind,
                "Timestamp": _now(),
                "ResourceStatus": status,
                **({"ResourceStatusReason": reason} if reason else {}),
            },
        )

    def becomes(self, status: str, reason: str = "") -> None:
        self.status, self.reason = status, reason
        self.note(self.name, _STACK, status, reason)


class Stacks:
    """The stacks of one emulated organization, each in its account and region."""

    def __init__(self) -> None:
        self._stacks: dict[tuple[str, str], list[Stack]] = {}

    def answer(self, call: Call, operation: str, account: str, iam: Iam) -> Response:
        """Answer an authorized call. ``iam`` makes a call as the same caller."""
        form = call.form()
        accepted = ACCEPTED.get(operation)
        if accepted is None:
            raise Refusal("unknown action", f"The action {operation} is not emulated.")
        if unknown := {name.partition(".")[0] for name in form} - accepted:
            raise _invalid(f"The parameter {min(unknown)} is not emulated.")
        stacks = self._stacks.setdefault((account, call.region), [])
        if operation == "CreateStack":
            return _answer(operation, {"StackId": _create(stacks, form, call, account, iam).id})
        if operation == "DescribeStacks" and "StackName" not in form:
            alive = [one for one in stacks if one.status != "DELETE_COMPLETE"]
            return _answer(operation, {"Stacks": [_described(one) for one in alive]})
        found = _find(stacks, form.get("StackName", ""))
        if operation == "DeleteStack":
            if found is not None and found.status != "DELETE_COMPLETE":
                _check_deletable(found)
                _delete(found, iam)
            return _answer(operation, None)
        if found is None:
            raise _invalid(f"Stack with id {form.get('StackName', '')} does not exist")
        if operation == "UpdateTerminationProtection":
            found.protected = _protection(form)
            return _answer(operation, {"StackId": found.id})
        if operation == "DescribeStackEvents":
            return _answer(operation, {"StackEvents": found.events})
        return _answer(operation, {"Stacks": [_described(found)]})


def _find(stacks: list[Stack], name_or_id: str) -> Stack | None:
    """By id also what has been deleted."""
    return next(
        (
            one
            for one in stacks
            if name_or_id == one.id or (name_or_id == one.name and one.status != "DELETE_COMPLETE")
        ),
        None,
    )


def _create(
    stacks: list[Stack], form: Mapping[str, str], call: Call, account: str, iam: Iam
) -> Stack:
    name = form.get("StackName", "")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise _invalid(
            f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
        )
    if _find(stacks, name):
        raise Refusal("AlreadyExistsException", f"Stack [{name}] already exists", status=400)
    stack_id = f"arn:aws:cloudformation:{call.region}:{account}:stack/{name}/{uuid.uuid4()}"
    pseudo = {
        "AWS::AccountId": account,
        "AWS::Partition": "aws",
        "AWS::Region": call.region,
        "AWS::StackId": stack_id,
        "AWS::StackName": name,
        "AWS::URLSuffix": "amazonaws.com",
    }
    try:
        template = read_template(form.get("TemplateBody", ""), _given(form), pseudo)
        kinds = {template.resource(one)["Type"] for one in template.raw["Resources"]}
    except InvalidTemplate as problem:
        raise _invalid(str(problem)) from None
    except KeyError:
        raise _invalid("Template format error: Every resource must have a Type.") from None
    if unknown := sorted(kinds - set(_KINDS)):
        raise _invalid(
            f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]"
        )
    capabilities = [value for key, value in form.items() if key.startswith("Capabilities.")]
    _check_capabilities(template, capabilities)
    stack = Stack(stack_id, name, template, capabilities, _now())
    stack.protected = "EnableTerminationProtection" in form and _protection(form)
    stacks.append(stack)
    _build(stack, iam)
    return stack


def _given(form: Mapping[str, str]) -> dict[str, str]:
    """Parameters.member.N.ParameterKey and ParameterValue, as a mapping."""
    found = {}
    for name, key in form.items():
        if match := re.fullmatch(r"Parameters\.member\.(\d+)\.ParameterKey", name):
            value = form.get(f"Parameters.member.{match[1]}.ParameterValue")
            if value is None:
                raise _invalid(f"Parameters: [{key}] must have values")
            found[key] = value
    return found


def _check_capabilities(template: Template, capabilities: list[str]) -> None:
    """Every kind here is IAM's; one that the template names needs the stronger capability."""
    named = any(
        _KINDS[one["Type"]].name_property in one.get("Properties", {})
        for one in template.raw["Resources"].values()
    )
    needed = "CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM"
    if not {needed, "CAPABILITY_NAMED_IAM"} & set(capabilities):
        raise Refusal(
            "InsufficientCapabilitiesException", f"Requires capabilities : [{needed}]", status=400
        )


def _build(stack: Stack, iam: Iam) -> None:
    """Every resource in its order; when one fails, those that were made are taken away again."""
    stack.becomes("CREATE_IN_PROGRESS", "User Initiated")
    for logical_id in stack.template.order:
        kind = stack.template.resource(logical_id)["Type"]
        stack.note(logical_id, kind, "CREATE_IN_PROGRESS")
        try:
            _make(stack, logical_id, iam)
        except (Failed, InvalidTemplate, Refusal) as problem:
            reason = getattr(problem, "message", "") or str(problem)
            stack.note(logical_id, kind, "CREATE_FAILED", reason)
            failed = f"The following resource(s) failed to create: [{logical_id}]. "
            stack.becomes("ROLLBACK_IN_PROGRESS", f"{failed}Rollback requested by user.")
            left = _take_away(stack, iam)
            stack.becomes("ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE", left)
            return
        stack.note(logical_id, kind, "CREATE_COMPLETE")
    for name, output in stack.template.outputs():
        value = stack.template.resolve(output["Value"], stack.made)
        described = {"Description": output["Description"]} if "Description" in output else {}
        stack.outputs.append({"OutputKey": name, "OutputValue": value, **described})
    stack.becomes("CREATE_COMPLETE")


def _make(stack: Stack, logical_id: str, iam: Iam) -> None:
    resource = stack.template.resource(logical_id)
    kind = _KINDS[resource["Type"]]
    properties = stack.template.resolve(resource.get("Properties", {}), stack.made)
    for problem, keys in (
        ("extraneous key", set(properties) - kind.properties),
        ("required key", kind.required - set(properties)),
    ):
        if keys:
            ending = "is not permitted" if problem == "extraneous key" else "not found"
            raise Failed(
                f"Properties validation failed for resource {logical_id} with message: "
                f"{problem} [{min(keys)}] {ending}"
            )
    if kind.name_property not in properties:
        drawn = f"{stack.name}-{logical_id}-{uuid.uuid4().hex[:12].upper()}"
        properties[kind.name_property] = drawn

    def call(operation: str, back: str, undo: Mapping[str, Any], **params: Any) -> Any:
        answer = iam(operation, params)
        stack.undo.append((logical_id, back, undo))
        return answer

    stack.made[logical_id] = kind.make(properties, call)


def _take_away(stack: Stack, iam: Iam) -> str:
    """Undo every call, the last first. Answers why not, or nothing."""
    while stack.undo:
        logical_id, operation, params = stack.undo[-1]
        try:
            iam(operation, params)
        except Refusal as refusal:
            if refusal.kind != "NoSuchEntity":
                kind = stack.template.resource(logical_id)["Type"]
                stack.note(logical_id, kind, "DELETE_FAILED", refusal.message)
                return f"The following resource(s) failed to delete: [{logical_id}]. "
        stack.undo.pop()
    return ""


def _protection(form: Mapping[str, str]) -> bool:
    wanted = form.get("EnableTerminationProtection", "")
    if wanted not in ("true", "false"):
        raise _invalid("EnableTerminationProtection must be true or false.")
    return wanted == "true"


def _check_deletable(stack: Stack) -> None:
    if stack.protected:
        raise _invalid(
            f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
        )


def _delete(stack: Stack, iam: Iam) -> None:
    stack.becomes("DELETE_IN_PROGRESS", "User Initiated")
    left = _take_away(stack, iam)
    stack.becomes("DELETE_FAILED" if left else "DELETE_COMPLETE", left)


# ---------------------------------------------------------------- resources


@dataclass(frozen=True)
class Kind:
    """A resource type: the properties it knows, and the calls that make one.

    ``make`` answers the attributes of what it made; "Ref" is what Ref gives.
    """

    name_property: str
    properties: frozenset[str]
    required: frozenset[str]
    make: Callable[[Mapping[str, Any], Callable[..., Any]], dict[str, str]]


def _role(properties: Mapping[str, Any], call: Callable[..., Any]) -> dict[str, str]:
    name = properties["RoleName"]
    own = {"RoleName": name}
    wanted = {
        key: properties[key]
        for key in ("Description", "MaxSessionDuration", "Path", "PermissionsBoundary", "Tags")
        if key in properties
    }
    trust = json.dumps(properties["AssumeRolePolicyDocument"])
    answer = call("CreateRole", "DeleteRole", own, AssumeRolePolicyDocument=trust, **own, **wanted)
    for policy in properties.get("Policies", []):
        inline = {**own, "PolicyName": policy["PolicyName"]}
        document = json.dumps(policy["PolicyDocument"])
        call("PutRolePolicy", "DeleteRolePolicy", inline, PolicyDocument=document, **inline)
    for arn in properties.get("ManagedPolicyArns", []):
        attached = {**own, "PolicyArn": arn}
        call("AttachRolePolicy", "DetachRolePolicy", attached, **attached)
    role = answer["Role"]
    return {"Ref": name, "Arn": role["Arn"], "RoleId": role["RoleId"]}


def _managed_policy(properties: Mapping[str, Any], call: Callable[..., Any]) -> dict[str, str]:
    wanted = {key: properties[key] for key in ("Description", "Path") if key in properties}
    undo: dict[str, str] = {}  # its ARN is known afterwards
    answer = call(
        "CreatePolicy",
        "DeletePolicy",
        undo,
        PolicyName=properties["ManagedPolicyName"],
        PolicyDocument=json.dumps(properties["PolicyDocument"]),
        **wanted,
    )
    undo["PolicyArn"] = arn = answer["Policy"]["Arn"]
    return {"Ref": arn, "PolicyArn": arn, "PolicyId": answer["Policy"]["PolicyId"]}


_KINDS = {
    "AWS::IAM::Role": Kind(
        "RoleName",
        frozenset(
            {
                "AssumeRolePolicyDocument",
                "Description",
                "ManagedPolicyArns",
                "MaxSessionDuration",
                "Path",
                "PermissionsBoundary",
                "Policies",
                "RoleName",
                "Tags",
            }
        ),
        frozenset({"AssumeRolePolicyDocument"}),
        _role,
    ),
    "AWS::IAM::ManagedPolicy": Kind(
        "ManagedPolicyName",
        frozenset({"Description", "ManagedPolicyName", "Path", "PolicyDocument"}),
        frozenset({"PolicyDocument"}),
        _managed_policy,
    ),
}


# ---------------------------------------------------------------- answers


def _invalid(message: str) -> Refusal:
    return Refusal("ValidationError", message, status=400)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _described(stack: Stack) -> dict[str, Any]:
    parameters = stack.template.parameters()
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "Description": stack.template.raw.get("Description", ""),
        "Parameters": [
            {"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()
        ],
        "CreationTime": stack.created,
        "StackStatus": stack.status,
        "EnableTerminationProtection": str(stack.protected).lower(),
        **({"StackStatusReason": stack.reason} if stack.reason else {}),
        "Capabilities": stack.capabilities,
        "Outputs": stack.outputs,
    }


def _answer(operation: str, result: Mapping[str, Any] | None) -> Response:
    request_id = str(uuid.uuid4())
    inner = "" if result is None else f"<{operation}Result>{_xml(result)}</{operation}Result>"
    body = (
        f'<{operation}Response xmlns="{NAMESPACE}">{inner}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        f"</{operation}Response>"
    )
    return 200, [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)], body.encode()


def _xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{key}>{_xml(one)}</{key}>" for key, one in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_xml(one)}</member>" for one in value)
    return escape(str(value))
