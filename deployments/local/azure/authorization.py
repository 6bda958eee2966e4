"""Microsoft.Authorization: role assignments, role definitions and permissions, on any scope."""

from __future__ import annotations

import re
from typing import Any

from deployments.local.azure.conditions import check, permits
from deployments.local.azure.protocol import (
    ArmError,
    ArmRequest,
    Reply,
    ResourceKind,
    body_object,
    properties_of,
)
from deployments.local.azure.rbac import RoleAssignment, RoleDefinition, covers
from deployments.local.azure.tenant import Tenant

API_VERSIONS = (
    "2022-05-01-preview",
    "2022-04-01",
    "2020-10-01-preview",
    "2020-08-01-preview",
    "2020-04-01-preview",
    "2018-07-01",
    "2018-01-01-preview",
    "2015-07-01",
)
PERMISSIONS_TYPE = "microsoft.authorization/permissions"
PERMISSIONS_READ = "Microsoft.Authorization/permissions/read"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SCOPE = re.compile(rf"/subscriptions/{GUID.pattern}(/resourceGroups/[^/]+)?", re.IGNORECASE)
_FILTER = re.compile(
    r"(?P<scope>atScope\(\)|atScopeAndBelow\(\))"
    r"|(?P<field>principalId|assignedTo|roleName|type)(?:\s+eq\s+|\()'(?P<value>[^']*)'\)?",
    re.IGNORECASE,
)


def parse_filter(text: str) -> dict[str, str]:
    """$filter as {"atscope": "", "principalid": value, ...}; anything else is 400."""
    found: dict[str, str] = {}
    for term in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE) if text.strip() else ():
        match = _FILTER.fullmatch(term.strip())
        if match is None:
            raise ArmError(400, "BadRequestFormat", f"The filter '{text}' is not supported.")
        if match["scope"]:
            found[match["scope"].lower().removesuffix("()")] = ""
        else:
            found[match["field"].lower()] = match["value"].lower()
    return found


def permissions(tenant: Tenant, principal: str, scope: str) -> list[dict[str, Any]]:
    """What the principal may do on the whole scope: one entry for each role it has there."""
    roles = tenant.access.roles(principal, scope, tenant.clock())
    return [render_permissions(role) for role in roles]


def render_permissions(role: RoleDefinition) -> dict[str, Any]:
    return {
        "actions": list(role.actions),
        "notActions": list(role.not_actions),
        "dataActions": list(role.data_actions),
        "notDataActions": list(role.not_data_actions),
    }


class RoleAssignments(ResourceKind):
    """{scope}/providers/Microsoft.Authorization/roleAssignments."""

    type = "Microsoft.Authorization/roleAssignments"
    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def get(self, request: ArmRequest) -> Reply:
        found = self.tenant.access.find(request.path.scope, request.path.name)
        if found is None:
            raise ArmError(
                404,
                "RoleAssignmentNotFound",
                f"The role assignment '{request.path.name}' is not found.",
            )
        return Reply(200, self._render(found))

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        """At the scope, above it and, unless atScope() is asked for, below it."""
        terms, scope = parse_filter(request.query.get("$filter", "")), request.path.scope
        principal = terms.get("principalid") or terms.get("assignedto")
        return [
            self._render(assignment)
            for assignment in self.tenant.access.all()
            if (not principal or assignment.principal.lower() == principal)
            and (
                covers(assignment.scope, scope)
                or ("atscope" not in terms and covers(scope, assignment.scope))
            )
        ]

    def put(self, request: ArmRequest) -> Reply:
        path = request.path
        if not GUID.fullmatch(path.name):
            raise ArmError(
                400,
                "InvalidRoleAssignmentId",
                f"The role assignment ID '{path.name}' is not valid. "
                "The role assignment ID must be a GUID.",
            )
        self._check_scope(path.scope)
        properties = properties_of(body_object(request))
        role = self._role(properties.get("roleDefinitionId"), path.scope)
        principal = self._principal(properties.get("principalId"))
        self._check_conditions(request, role.id, principal)
        existing = self.tenant.access.find(path.scope, path.name)
        if existing:
            return self._same_again(
                existing, principal, role, properties.get("description", existing.description)
            )
        self._check_unique(path.scope, principal, role)
        assignment = RoleAssignment(
            name=path.name.lower(),
            scope=path.scope,
            principal=principal,
            role=role,
            starts=self.tenant.clock() + self.tenant.rbac_delay,
            created=self.tenant.now_text(),
            description=properties.get("description"),
            condition=_checked_condition(properties),
        )
        if not self.tenant.rbac_delay:
            assignment.starts = float("-inf")
        self.tenant.access.assign(assignment)
        return Reply(201, self._render(assignment))

    def delete(self, request: ArmRequest) -> Reply:
        found = self.tenant.access.find(request.path.scope, request.path.name)
        if found is None:
            return Reply(204)
        self._check_conditions(request, found.role.id, found.principal)
        self.tenant.access.remove(found, self.tenant.clock() + self.tenant.rbac_delay)
        return Reply(200, self._render(found))

    def _same_again(
        self,
        existing: RoleAssignment,
        principal: str,
        role: RoleDefinition,
        description: str | None,
    ) -> Reply:
        """Only what an assignment is called and on what condition it holds can be updated."""
        if (existing.principal, existing.role.id) != (principal, role.id):
            raise ArmError(
                409,
                "RoleAssignmentUpdateNotPermitted",
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
            )
        existing.description = description
        return Reply(200, self._render(existing))

    def _check_conditions(self, request: ArmRequest, role: str, principal: str) -> None:
        """One of the caller's assignments must allow this without a condition, or by its own."""
        operation = f"{self.type}/{'delete' if request.method == 'DELETE' else 'write'}"
        caller, now = request.caller.object_id, self.tenant.clock()
        for own in self.tenant.access.in_force(caller, request.path.text, now):
            if not own.role.allows(operation):
                continue
            if own.condition is None or permits(own.condition, operation, role, principal):
                return
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The client with object id '{caller}' does not have authorization to perform action "
            f"'{operation}' over scope '{request.path.text}': its role assignment has a condition "
            "that is not met.",
        )

    def _check_unique(self, scope: str, principal: str, role: RoleDefinition) -> None:
        for other in self.tenant.access.all():
            same_scope = other.scope.lower() == scope.lower()
            if same_scope and other.principal == principal and other.role.id == role.id:
                raise ArmError(409, "RoleAssignmentExists", "The role assignment already exists.")

    def _check_scope(self, scope: str) -> None:
        """The scope must exist. Sub-resources are taken on trust below a resource that does."""
        parts = scope.strip("/").split("/")
        if len(parts) < 2 or parts[0].lower() != "subscriptions":
            return
        self.tenant.subscription(parts[1])
        if parts[2:3] and parts[2].lower() != "resourcegroups":
            return  # a setting of the subscription
        if len(parts) >= 4:
            self.tenant.group(parts[1], parts[3])
        if len(parts) >= 8 and self.tenant.resource("/" + "/".join(parts[:8])) is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource '{'/'.join(parts[5:8])}' under resource group '{parts[3]}' was "
                "not found. For more details please go to "
                "https://aka.ms/ARMResourceNotFoundFix",
            )

    def _role(self, role_id: object, scope: str) -> RoleDefinition:
        if not isinstance(role_id, str) or not role_id:
            raise ArmError(
                400, "InvalidCreateRoleAssignmentRequest", "'roleDefinitionId' is required."
            )
        guid = role_id.rstrip("/").rsplit("/", 1)[-1].lower()
        role = self.tenant.roles.get(guid)
        if role is None or not role.exists_at(scope):
            raise ArmError(
                404,
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{guid.replace('-', '')}' does not exist.",
            )
        return role

    def _principal(self, object_id: object) -> str:
        principal = self.tenant.principal_of(object_id) if isinstance(object_id, str) else None
        if principal is None:
            raise ArmError(
                400,
                "PrincipalNotFound",
                f"Principal {object_id} does not exist in the directory {self.tenant.id}.",
            )
        return principal.object_id

    def _render(self, assignment: RoleAssignment) -> dict[str, Any]:
        subscription = assignment.scope.strip("/").split("/")[1:2]
        prefix = f"/subscriptions/{subscription[0]}" if subscription else ""
        return {
            "id": f"{assignment.scope.rstrip('/')}/providers/{self.type}/{assignment.name}",
            "type": self.type,
            "name": assignment.name,
            "properties": {
                "roleDefinitionId": f"{prefix}/providers/Microsoft.Authorization"
                f"/roleDefinitions/{assignment.role.id}",
                "principalId": assignment.principal,
                "principalType": "ServicePrincipal",
                "scope": assignment.scope or "/",
                "condition": assignment.condition,
                "conditionVersion": "2.0" if assignment.condition else None,
                "createdOn": assignment.created,
                "updatedOn": assignment.created,
                "createdBy": "",
                "updatedBy": "",
                "delegatedManagedIdentityResourceId": None,
                "description": assignment.description,
            },
        }


def _checked_condition(properties: dict[str, Any]) -> str | None:
    condition = properties.get("condition")
    if condition is None:
        return None
    if not isinstance(condition, str) or properties.get("conditionVersion") != "2.0":
        raise ArmError(400, "InvalidConditionVersion", "'conditionVersion' must be '2.0'.")
    try:
        check(condition)
    except ValueError:
        raise ArmError(
            400, "InvalidCondition", "The emulator does not understand this condition."
        ) from None
    return condition


class RoleDefinitions(ResourceKind):
    """{scope}/providers/Microsoft.Authorization/roleDefinitions: read, and write custom roles."""

    type = "Microsoft.Authorization/roleDefinitions"
    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def get(self, request: ArmRequest) -> Reply:
        role = self.tenant.roles.get(request.path.name.lower())
        if role is None or not role.exists_at(request.path.scope):
            raise ArmError(
                404,
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{request.path.name}' does not exist.",
            )
        return Reply(200, self._render(role, request.path.scope))

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        terms, scope = parse_filter(request.query.get("$filter", "")), request.path.scope
        return [
            self._render(role, scope)
            for role in self.tenant.roles.values()
            if role.exists_at(scope)
            and terms.get("rolename", role.name.lower()) == role.name.lower()
            and terms.get("type", role.kind.lower()) == role.kind.lower()
        ]

    def put(self, request: ArmRequest) -> Reply:
        guid = request.path.name.lower()
        properties = properties_of(body_object(request))
        existing = self.tenant.roles.get(guid)
        if not GUID.fullmatch(guid) or (existing and existing.kind != "CustomRole"):
            raise ArmError(400, "InvalidRoleDefinitionId", "Only custom roles can be written.")
        role = self._checked_role(guid, properties)
        self._check_may_offer(request, role)
        self.tenant.add_role(role)
        for assignment in self.tenant.access.all():  # who has the role has what it is now
            if assignment.role.id == role.id:
                assignment.role = role
        return Reply(201, self._render(role, request.path.scope))

    def delete(self, request: ArmRequest) -> Reply:
        role = self.tenant.roles.get(request.path.name.lower())
        if role is None:
            return Reply(204)
        if role.kind != "CustomRole":
            raise ArmError(400, "InvalidRoleDefinitionId", "Built-in roles cannot be deleted.")
        if any(assignment.role.id == role.id for assignment in self.tenant.access.all()):
            raise ArmError(
                400,
                "RoleDefinitionHasAssignments",
                "There are existing role assignments referencing role.",
            )
        del self.tenant.roles[role.id.lower()]
        return Reply(200, self._render(role, request.path.scope))

    def _check_may_offer(self, request: ArmRequest, role: RoleDefinition) -> None:
        """A role is written to all of its assignable scopes, so that must be allowed on each."""
        caller, now = request.caller, self.tenant.clock()
        for scope in role.assignable_scopes:
            self.tenant.subscription(scope.strip("/").split("/")[1])
            if not self.tenant.access.allowed(caller.object_id, f"{self.type}/write", scope, now):
                raise ArmError(
                    403,
                    "LinkedAuthorizationFailed",
                    f"The client '{caller.client_id}' with object id '{caller.object_id}' has "
                    f"permission to perform action '{self.type}/write' on scope "
                    f"'{request.path.text}'; however, it does not have permission to perform it "
                    f"on the linked scope '{scope}'.",
                )

    def _checked_role(self, guid: str, properties: dict[str, Any]) -> RoleDefinition:
        name, scopes = properties.get("roleName"), properties.get("assignableScopes")
        permissions = properties.get("permissions")
        if not name or not isinstance(name, str) or not scopes or not permissions:
            raise ArmError(
                400,
                "InvalidRoleDefinition",
                "'roleName', 'assignableScopes' and 'permissions' are required.",
            )
        if not all(isinstance(one, str) and _SCOPE.fullmatch(one) for one in scopes):
            raise ArmError(
                400,
                "InvalidAssignableScopes",
                "Assignable scopes are subscriptions or resource groups here.",
            )
        if any(r.name.lower() == name.lower() and r.id != guid for r in self.tenant.roles.values()):
            raise ArmError(
                409, "RoleDefinitionWithSameNameExists", f"A role named '{name}' exists already."
            )
        return RoleDefinition(
            id=guid,
            name=name,
            description=properties.get("description") or "",
            actions=tuple(a for p in permissions for a in p.get("actions") or ()),
            not_actions=tuple(a for p in permissions for a in p.get("notActions") or ()),
            assignable_scopes=tuple(scopes),
            data_actions=tuple(a for p in permissions for a in p.get("dataActions") or ()),
            not_data_actions=tuple(a for p in permissions for a in p.get("notDataActions") or ()),
        )

    def _render(self, role: RoleDefinition, scope: str) -> dict[str, Any]:
        subscription = scope.strip("/").split("/")[1:2]
        prefix = f"/subscriptions/{subscription[0]}" if subscription else ""
        return {
            "id": f"{prefix}/providers/{self.type}/{role.id}",
            "type": self.type,
            "name": role.id,
            "properties": {
                "roleName": role.name,
                "type": role.kind,
                "description": role.description,
                "assignableScopes": list(role.assignable_scopes),
                "permissions": [render_permissions(role)],
            },
        }
