"""The activity log: every write that ARM answered, told as Event Grid tells it.

The format is that of learn.microsoft.com/azure/event-grid/event-schema-subscriptions.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from deployments.local.azure.protocol import ArmRequest, Caller
from deployments.local.azure.rbac import RoleAssignment
from deployments.local.azure.tenant import Tenant

_CLAIMS = "http://schemas.microsoft.com/identity/claims"
_XML_CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
# What the log calls a token's claims; the others keep their names.
CLAIM_NAMES = {
    "amr": ("http://schemas.microsoft.com/claims/authnmethodsreferences",),
    "family_name": (f"{_XML_CLAIMS}/surname",),
    "given_name": (f"{_XML_CLAIMS}/givenname",),
    "idp": (f"{_CLAIMS}/identityprovider",),
    "oid": (f"{_CLAIMS}/objectidentifier",),
    "scp": (f"{_CLAIMS}/scope",),
    "sub": (f"{_XML_CLAIMS}/nameidentifier",),
    "tid": (f"{_CLAIMS}/tenantid",),
    "upn": (f"{_XML_CLAIMS}/name", f"{_XML_CLAIMS}/upn"),
}
WORDS = {"write": "Write", "delete": "Delete", "action": "Action"}


class ActivityLog:
    """Makes the events of writes and hands them to ``publish``. ``address`` is ARM's own."""

    def __init__(
        self, tenant: Tenant, address: str, publish: Callable[[dict[str, Any]], None]
    ) -> None:
        self.tenant = tenant
        self.address = address
        self._publish = publish

    def note(self, request: ArmRequest, operation: str, scope: str, *, failed: bool) -> None:
        """One write has ended. ``operation`` is its provider's name for it, ``scope`` what it was
        made on. What is in no subscription is in no subscription's log.
        """
        subscription = request.path.subscription
        if not subscription:
            return
        caller, now = request.caller, self.tenant.clock()
        word = WORDS[operation.rpartition("/")[2].lower()]
        found = self.tenant.access.evidence(caller.object_id, operation, scope, now)
        self._publish(
            {
                "subject": scope,
                "eventType": f"Microsoft.Resources.Resource{word}"
                f"{'Failure' if failed else 'Success'}",
                "eventTime": _seven_digits(now),
                "id": str(uuid.uuid4()),
                "data": {
                    "authorization": {
                        "scope": scope,
                        "action": operation,
                        **({"evidence": _evidence(found, caller)} if found else {}),
                    },
                    "claims": _claims(caller.claims),
                    "correlationId": caller.correlation,
                    "httpRequest": self._http_request(request),
                    "resourceProvider": operation.partition("/")[0],
                    "resourceUri": scope,
                    "operationName": operation,
                    "status": "Failed" if failed else "Succeeded",
                    "subscriptionId": subscription,
                    "tenantId": self.tenant.id,
                },
                "dataVersion": "2",
                "metadataVersion": "1",
                "topic": f"/subscriptions/{subscription}",
            }
        )

    def _http_request(self, request: ArmRequest) -> dict[str, str]:
        asked = urlencode(dict(request.query))
        return {
            "clientRequestId": request.headers.get("x-ms-client-request-id", "")
            or request.caller.correlation,
            "clientIpAddress": request.caller.address,
            "method": request.method,
            "url": f"{self.address}{request.path.text}?{asked}",
        }


def _evidence(found: RoleAssignment, caller: Caller) -> dict[str, str]:
    """By which role it was allowed; ids stand without dashes here."""
    scope = found.scope or "/"
    return {
        "role": found.role.name,
        "roleAssignmentScope": scope,
        "roleAssignmentId": found.name.replace("-", ""),
        "roleDefinitionId": found.role.id.replace("-", ""),
        "principalId": caller.object_id.replace("-", ""),
        "principalType": "User" if "upn" in caller.claims else "ServicePrincipal",
    }


def _claims(claims: Mapping[str, Any]) -> dict[str, str]:
    """A token's claims as the log has them: all of them text, some under longer names."""
    told = {}
    for name, value in claims.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        told |= dict.fromkeys(CLAIM_NAMES.get(name, (name,)), text)
    return told


def _seven_digits(moment: float) -> str:
    """As .NET writes times: to a tenth of a microsecond."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
