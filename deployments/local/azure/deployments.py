"""Microsoft.Resources/deployments: templates, deployed through the emulator's own handlers.

Every resource is written with the permissions of whoever deploys, in the order the template asks
for. What was written before a resource failed stays, as in Azure.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.local.azure.arm_template import DEPLOYMENT, RESOURCE_GROUP, Plan, Planned, plan
from deployments.local.azure.expressions import LATER, Scope
from deployments.local.azure.operations import Operation, OperationFailure
from deployments.local.azure.protocol import (
    ArmError,
    ArmRequest,
    Caller,
    Reply,
    ResourceKind,
    bad_content,
    body_object,
    properties_of,
    tags_of,
)
from deployments.local.azure.subscriptions import API_VERSIONS, LOCATIONS
from deployments.local.azure.tenant import Tenant

DEPLOYABLE = frozenset(
    kind.lower()
    for kind in (
        DEPLOYMENT,
        RESOURCE_GROUP,
        "Microsoft.Authorization/roleAssignments",
        "Microsoft.Authorization/roleDefinitions",
        "Microsoft.ManagedIdentity/userAssignedIdentities",
    )
)
MOST_DEPLOYMENTS_DEEP = 5
_NAME = re.compile(r"[-\w.()]{1,64}", re.ASCII)
_PROPERTIES = {"expressionEvaluationOptions", "mode", "parameters", "template"}

# (caller, method, resource id, api-version, body) -> the answer. Raises ArmError.
OnBehalfOf = Callable[..., Reply]


@dataclass
class Deployment:
    """One deployment as it stands; ``operation`` runs until it has been polled to its end."""

    id: str
    name: str
    location: str
    tags: dict[str, str]
    parameters: dict[str, Any]
    started: str
    correlation: str
    state: str = "Accepted"
    outputs: dict[str, Any] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    operation: Operation | None = None

    def render(self) -> dict[str, Any]:
        ended = self.state in {"Succeeded", "Failed"}
        return {
            "id": self.id,
            "name": self.name,
            "type": DEPLOYMENT,
            **({"location": self.location} if self.location else {}),
            **({"tags": self.tags} if self.tags else {}),
            "properties": {
                "mode": "Incremental",
                "provisioningState": self.state,
                "timestamp": self.started,
                "correlationId": self.correlation,
                "parameters": {
                    name: {"type": _type_of(value), "value": value}
                    for name, value in self.parameters.items()
                },
                **({"outputs": self.outputs} if ended and not self.error else {}),
                **({"outputResources": [{"id": one} for one in self.written]} if ended else {}),
                **({"error": self.error} if ended and self.error else {}),
            },
        }


class Deployments(ResourceKind):
    """Deployments to a subscription, and to a resource group."""

    type = DEPLOYMENT
    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant, resource_manager: str, on_behalf_of: OnBehalfOf) -> None:
        self.tenant = tenant
        self.resource_manager = resource_manager
        self._on_behalf_of = on_behalf_of
        self._known: dict[str, Deployment] = {}
        self._depth = 0

    def get(self, request: ArmRequest) -> Reply:
        found = self._known.get(request.path.key)
        if found is None:
            raise ArmError(
                404,
                "DeploymentNotFound",
                f"Deployment '{request.path.name}' could not be found.",
            )
        return Reply(200, found.render())

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        """Those of exactly this scope: a resource group's are its own."""
        scope = request.path.scope.lower()
        return [
            found.render()
            for key, found in self._known.items()
            if key.rpartition("/providers/")[0] == scope
        ]

    def validate(self, request: ArmRequest) -> Reply:
        """POST …/validate: what PUT would refuse at once, and nothing is written."""
        laid_out, location, _ = self._plan(request)
        where = {"location": location} if location else {}
        parameters = {
            name: {"type": _type_of(value), "value": value}
            for name, value in laid_out.parameters.items()
        }
        return Reply(
            200,
            {
                "id": request.path.text.rpartition("/")[0],
                "name": request.path.name,
                "type": self.type,
                **where,
                "properties": {
                    "mode": "Incremental",
                    "provisioningState": "Succeeded",
                    "parameters": parameters,
                    "validatedResources": [{"id": one.id} for one in laid_out.resources],
                },
            },
        )

    def put(self, request: ArmRequest) -> Reply:
        path = request.path
        laid_out, location, tags = self._plan(request)
        existing = self._known.get(path.key)
        if existing and existing.state not in {"Succeeded", "Failed"}:
            raise ArmError(
                409,
                "DeploymentActive",
                f"Unable to edit or replace deployment '{path.name}': it is still active.",
            )
        if existing and existing.location != location:
            raise ArmError(
                400,
                "InvalidDeploymentLocation",
                f"Invalid deployment location '{location}'. The deployment '{path.name}' already "
                f"exists in location '{existing.location}'.",
            )
        deployment = Deployment(
            id=path.text,
            name=path.name,
            location=location,
            tags=tags,
            parameters=laid_out.parameters,
            started=self.tenant.now_text(),
            correlation=str(uuid.uuid4()),
        )
        self._known[path.key] = deployment
        self._carry_out(deployment, laid_out, request.caller)
        self._begin(deployment, request)
        address = (
            f"{self.resource_manager}{path.text}/operationStatuses/{deployment.operation.id}"
            f"?api-version={request.query['api-version']}"
        )
        headers = {"Azure-AsyncOperation": address, **self.tenant.operations.headers()}
        return Reply(200 if existing else 201, deployment.render(), headers)

    # Reading what is asked for

    def _plan(self, request: ArmRequest) -> tuple[Plan, str, dict[str, str]]:
        """The template of a body, laid out and tried with what is known before it runs."""
        path, body = request.path, body_object(request)
        if not _NAME.fullmatch(path.names[0]):
            raise ArmError(
                400,
                "InvalidDeploymentName",
                f"The deployment name '{path.names[0]}' has 1 to 64 letters, digits, '-', '_', "
                "'.', '(' or ')'.",
            )
        if unknown := set(body) - {"location", "properties", "tags"}:
            raise bad_content(f"The deployment's '{min(unknown)}' is not expected.")
        location = self._location(path.group, body, path.names[0])
        properties = properties_of(body)
        if unknown := set(properties) - _PROPERTIES:
            raise bad_content(f"The deployment's property '{min(unknown)}' is not emulated.")
        if properties.get("mode") != "Incremental":
            raise ArmError(
                400, "InvalidDeploymentMode", "The mode 'Incremental' is required; no other is."
            )
        laid_out = self._try(properties, self._scope(path.subscription, path.group, body, request))
        return laid_out, location, tags_of(body)

    def _location(self, group: str, body: Mapping[str, Any], name: str) -> str:
        location = body.get("location")
        if group:
            if location is not None:
                raise ArmError(
                    400,
                    "InvalidDeployment",
                    f"The 'location' property is not allowed for '{name}' at resource group scope.",
                )
            return ""
        if not isinstance(location, str) or not location:
            raise ArmError(
                400,
                "LocationRequired",
                "The location property is required for this definition.",
            )
        location = location.replace(" ", "").lower()
        if location not in LOCATIONS:
            raise ArmError(
                400,
                "LocationNotAvailableForDeployment",
                f"The provided location '{location}' is not available for deployment.",
            )
        return location

    def _scope(
        self, subscription: str, group: str, body: Mapping[str, Any], request: ArmRequest
    ) -> Scope:
        location = str(body.get("location", "")).replace(" ", "").lower()
        where = {"location": location} if location else {}
        return Scope(
            tenant=self.tenant.id,
            subscription=self.tenant.subscription(subscription).id,
            group=group,
            deployment={"name": request.path.names[0], **where},
            referenced=lambda _id, _version: LATER,
        )

    def _try(self, properties: Mapping[str, Any], scope: Scope, depth: int = 1) -> Plan:
        """Lay a template out and evaluate all of it, nested ones too, where values are known."""
        if depth > MOST_DEPLOYMENTS_DEEP:
            raise ArmError(400, "InvalidTemplate", "Deployments are nested too deeply.")
        given = properties.get("parameters") or {}
        laid_out = plan(properties.get("template"), given, scope, DEPLOYABLE)
        for one in laid_out.resources:
            body = one.body()
            if one.type == DEPLOYMENT:
                inner = _inner_scope(one, body, scope)
                self._try(body.get("properties") or {}, inner, depth + 1)
        laid_out.outputs()
        return laid_out

    # Doing it

    def _carry_out(self, deployment: Deployment, laid_out: Plan, caller: Caller) -> None:
        """Write every resource; the first that fails ends it."""

        def referenced(resource: str, version: str) -> Any:
            reply = self._on_behalf_of(caller, "GET", resource, version)
            return reply.body.get("properties", {})

        live = _referring(laid_out, referenced)
        try:
            for one in live.resources:
                self._write(one, caller)
                deployment.written.append(one.id)
            deployment.outputs = live.outputs()
        except ArmError as error:
            deployment.error = {
                "code": "DeploymentFailed",
                "message": "At least one resource deployment operation failed. Please list "
                "deployment operations for details.",
                "details": [error.body()["error"]],
            }

    def _write(self, planned: Planned, caller: Caller) -> None:
        self._on_behalf_of(caller, "PUT", planned.id, planned.version, planned.body())
        nested = self._known.get(planned.id.lower()) if planned.type == DEPLOYMENT else None
        if nested is None:
            return
        self.tenant.operations.finish(nested.operation)
        if nested.error:
            raise ArmError(
                409,
                "DeploymentFailed",
                f"The nested deployment '{nested.name}' failed: "
                f"{nested.error['details'][0]['message']}",
                details=nested.error["details"],
            )

    def _begin(self, deployment: Deployment, request: ArmRequest) -> None:
        """It has happened; that it has is told when somebody has polled, as in Azure."""
        failure = None
        if error := deployment.error:
            failure = OperationFailure(error["code"], error["message"], details=error["details"])

        def finish(failed: OperationFailure | None) -> None:
            deployment.state = "Failed" if failed else "Succeeded"

        deployment.operation = self.tenant.operations.begin(
            request.path.key,
            request.caller.object_id,
            finish,
            lambda: Reply(200, deployment.render()),
            failure,
        )


def _inner_scope(planned: Planned, body: Mapping[str, Any], outer: Scope) -> Scope:
    parts = planned.id.split("/")
    group = parts[4] if parts[3].lower() == "resourcegroups" else ""
    location = body.get("location")
    where = {"location": location} if location else {}
    if bool(location) == bool(group):
        raise ArmError(
            400,
            "InvalidTemplate",
            "A nested deployment has a location at subscription scope, and none in a resource "
            "group.",
        )
    return Scope(
        tenant=outer.tenant,
        subscription=parts[2],
        group=group,
        deployment={"name": parts[-1], **where},
        referenced=outer.referenced,
    )


def _referring(laid_out: Plan, referenced: Callable[[str, str], Any]) -> Plan:
    """The same plan, in which reference() asks what is there by now."""
    return replace(
        laid_out,
        scope=replace(laid_out.scope, referenced=referenced),
        resources=tuple(
            replace(one, scope=replace(one.scope, referenced=referenced))
            for one in laid_out.resources
        ),
    )


def _type_of(value: Any) -> str:
    names = {bool: "Bool", int: "Int", str: "String", list: "Array", dict: "Object"}
    return names.get(type(value), "Object")
