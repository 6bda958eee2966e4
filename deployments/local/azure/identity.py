"""Microsoft.ManagedIdentity: user-assigned identities and the tokens they trust (federation)."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from deployments.local.azure.protocol import (
    ArmError,
    ArmRequest,
    Reply,
    ResourceKind,
    body_object,
    properties_of,
    resource_not_found,
    tags_of,
)
from deployments.local.azure.tenant import (
    FederatedCredential,
    Resource,
    ServicePrincipal,
    Tenant,
)

API_VERSIONS = ("2024-11-30", "2023-07-31-preview", "2023-01-31", "2022-01-31-preview")
IDENTITY_TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
CREDENTIAL_TYPE = f"{IDENTITY_TYPE}/federatedIdentityCredentials"
MOST_CREDENTIALS = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,119}")
_IDENTITY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,127}")


@dataclass(kw_only=True)
class UserAssignedIdentity(Resource):
    """An identity as a resource; ``principal`` is its other half, in the directory."""

    type: str = IDENTITY_TYPE
    tenant_id: str = ""
    principal: ServicePrincipal

    def render(self) -> dict[str, Any]:
        return {
            **self.summary(),
            "properties": {
                "tenantId": self.tenant_id,
                "principalId": self.principal.object_id,
                "clientId": self.principal.client_id,
            },
        }


class UserAssignedIdentities(ResourceKind):
    """userAssignedIdentities: making one makes its service principal, too."""

    type = IDENTITY_TYPE
    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def get(self, request: ArmRequest) -> Reply:
        return Reply(200, find_identity(self.tenant, request, request.path.key).render())

    def put(self, request: ArmRequest) -> Reply:
        path, body = request.path, body_object(request)
        location = body.get("location")
        if not isinstance(location, str) or not location:
            raise ArmError(400, "LocationRequired", "The location property is required.")
        if not _IDENTITY_NAME.fullmatch(path.name):
            raise _bad_request(
                "The name of a user-assigned identity has 3 to 128 letters, digits, '-' or '_'."
            )
        location = location.replace(" ", "").lower()
        existing = self.tenant.resource(path.key)
        if isinstance(existing, UserAssignedIdentity):
            if existing.location != location:
                raise ArmError(
                    409,
                    "InvalidResourceLocation",
                    f"The resource '{path.name}' already exists in location '{existing.location}'.",
                )
            existing.tags = tags_of(body)
            return Reply(200, existing.render())
        principal = ServicePrincipal(str(uuid.uuid4()), str(uuid.uuid4()), path.name)
        identity = UserAssignedIdentity(
            id=path.text,
            name=path.name,
            location=location,
            tags=tags_of(body),
            tenant_id=self.tenant.id,
            principal=self.tenant.add_principal(principal),
        )
        self.tenant.add_resource(identity)
        return Reply(201, identity.render())

    def delete(self, request: ArmRequest) -> Reply:
        """Its role assignments stay, of a principal that is no more."""
        found = self.tenant.resource(request.path.key)
        if not isinstance(found, UserAssignedIdentity):
            return Reply(204)
        self.tenant.remove_resource(found)
        self.tenant.principals.pop(found.principal.client_id.lower(), None)
        return Reply(200)

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        path = request.path
        return [x.render() for x in self.tenant.resources(path.subscription, path.group, self.type)]


class FederatedCredentials(ResourceKind):
    """userAssignedIdentities/federatedIdentityCredentials.

    No answer but the credential itself repeats a subject: it can hold a secret code.
    """

    type = CREDENTIAL_TYPE
    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def get(self, request: ArmRequest) -> Reply:
        identity = self._identity(request)
        found = identity.principal.federated.get(request.path.name.lower())
        if found is None:
            raise resource_not_found(request.path)
        return Reply(200, _render(identity, found))

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        identity = self._identity(request)
        return [_render(identity, x) for x in identity.principal.federated.values()]

    def put(self, request: ArmRequest) -> Reply:
        identity, path = self._identity(request), request.path
        if not _NAME.fullmatch(path.name):
            raise _bad_request(
                "Federated identity credential names have 3 to 120 letters, digits, '-' or '_'."
            )
        now, delay = self.tenant.clock(), self.tenant.federation_delay
        credential = _checked(path.name, properties_of(body_object(request)))
        credential.starts = now + delay if delay else 0.0
        held, key = identity.principal.federated, path.name.lower()
        existing = held.get(key)
        others = [other for name, other in held.items() if name != key]
        if existing is None and len(others) >= MOST_CREDENTIALS:
            raise _bad_request(
                "Too many federated identity credentials are attached to this managed identity: "
                f"at most {MOST_CREDENTIALS}."
            )
        pair = (credential.issuer, credential.subject)
        if any((other.issuer, other.subject) == pair for other in others):
            raise ArmError(
                409,
                "Conflict",
                "The issuer and subject combination already exists for this managed identity.",
            )
        if existing:
            self._retire(identity, existing)
        held[key] = credential
        return Reply(200 if existing else 201, _render(identity, credential))

    def delete(self, request: ArmRequest) -> Reply:
        identity = self._identity(request)
        found = identity.principal.federated.pop(request.path.name.lower(), None)
        if found is None:
            return Reply(204)
        self._retire(identity, found)
        return Reply(200)

    def _retire(self, identity: UserAssignedIdentity, credential: FederatedCredential) -> None:
        """A deletion takes as long to propagate as a creation. Forgets what is long over."""
        now = self.tenant.clock()
        credential.ends = now + self.tenant.federation_delay
        retired = identity.principal.retired
        retired[:] = [old for old in retired if old.ends > now]
        if credential.ends > now:
            retired.append(credential)

    def _identity(self, request: ArmRequest) -> UserAssignedIdentity:
        return find_identity(self.tenant, request, request.path.parent)


def find_identity(tenant: Tenant, request: ArmRequest, key: str) -> UserAssignedIdentity:
    found = tenant.resource(key)
    if not isinstance(found, UserAssignedIdentity):
        raise resource_not_found(request.path)
    return found


def _checked(name: str, properties: dict[str, Any]) -> FederatedCredential:
    issuer, subject = properties.get("issuer"), properties.get("subject")
    audiences = properties.get("audiences")
    if not isinstance(issuer, str) or not issuer.startswith("https://") or len(issuer) > 600:
        raise _bad_request("'issuer' must be an https address of at most 600 characters.")
    if not isinstance(subject, str) or not 0 < len(subject) <= 600:
        raise _bad_request("'subject' must have 1 to 600 characters.")
    one = isinstance(audiences, list) and len(audiences) == 1
    if not one or not isinstance(audiences[0], str) or not 0 < len(audiences[0]) <= 600:
        raise _bad_request("'audiences' must hold exactly one audience.")
    return FederatedCredential(name, issuer, subject, tuple(audiences))


def _render(identity: UserAssignedIdentity, credential: FederatedCredential) -> dict[str, Any]:
    return {
        "id": f"{identity.id}/federatedIdentityCredentials/{credential.name}",
        "name": credential.name,
        "type": CREDENTIAL_TYPE,
        "properties": {
            "issuer": credential.issuer,
            "subject": credential.subject,
            "audiences": list(credential.audiences),
        },
    }


def _bad_request(message: str) -> ArmError:
    return ArmError(400, "BadRequest", message)
