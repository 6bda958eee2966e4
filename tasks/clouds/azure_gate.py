"""The gate of an Azure subscription: a federated credential and role assignments. Customer's side.

A token that Azure has issued outlives the credential it was got with. So closing takes the role
assignments too, and nothing closes by itself: whoever opens must see to the closing.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials import TokenCredential
from pydantic import SecretStr
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from tasks.clouds.azure_write import EXCHANGE_AUDIENCE, Arm
from tasks.clouds.openings import WARM, Opening, moment, timestamp
from tasks.clouds.sdk_errors import UnsettledWrite
from tasks.errors import BadInput, CloudError, CloudTimeout, Conflict, Throttled
from tasks.inventory import AzureSource, Issuer

log = logging.getLogger(__name__)

CREDENTIAL = "suture-gate-"  # what the names of our federated credentials begin with
_IDENTITY_API = "2023-01-31"
_AUTHORIZATION_API = "2022-04-01"
_SEGMENT = r"(?!\.+(/|$))[\w.()-]+"  # of an ARM id; dots alone would lead elsewhere
# A setting of the subscription itself is TYPE/NAME, of a provider whose resources hold no others.
_OF_SUBSCRIPTION = (
    r"/providers/(?!microsoft\.(resources|management|subscription|authorization)/)"
    rf"{_SEGMENT}/{_SEGMENT}/{_SEGMENT}"
)
_IN_GROUP = rf"/resourcegroups/{_SEGMENT}/providers/{_SEGMENT}(/{_SEGMENT}/{_SEGMENT})+"
_UNTIL = "Suture's gate, opened until "


@dataclass(frozen=True, slots=True)
class _Credential:
    """One of our federated credentials. ``until`` stands in its name: nothing else of it may say
    more than what it is for, and where two openings are of one resource, only one of them has a
    role assignment that tells.
    """

    name: str
    opening: str
    until: datetime | None


class CodeInUse(Conflict):
    """Another opening has this very code: Azure takes a subject once for each identity."""


class AzureGate:
    """Opens and closes resources of one subscription for Suture's remediator identity."""

    closes_itself = False

    def __init__(
        self, source: AzureSource, issuer: Issuer, subscription: str, credential: TokenCredential
    ) -> None:
        self._source = source
        self._issuer = issuer
        self._subscription = f"/subscriptions/{subscription.lower()}"
        self._one_resource = re.compile(
            rf"{re.escape(self._subscription)}({_IN_GROUP}|{_OF_SUBSCRIPTION})"
        )
        self._arm = Arm(source, subscription, credential)
        self._identity = source.remediator_identity
        # The identity serves all subscriptions: the names tell whose a credential is.
        self._prefix = f"{CREDENTIAL}{subscription.lower().replace('-', '')}-"

    def open(
        self, opening: str, code: SecretStr, until: datetime, resources: Sequence[str]
    ) -> None:
        """Let the remediator write to the resources, and sign in with ``<gate id>:<code>``.

        What the same opening had opened before is closed first, and what is past its time. When
        opening ends halfway, by an error or an interrupt, what was opened is closed again. Raises
        CodeInUse when another opening has the same code.
        """
        scopes = self._scopes(resources)
        if opening not in WARM:  # that is renewed, and its assignments stay in force meanwhile
            self.close(opening)
        self.close_overdue()
        try:
            principal = self._principal()
            for scope in scopes:
                self._assign(opening, principal, scope, until)
            self._trust(opening, f"{self._source.gate_id}:{code.get_secret_value()}", until)
        except BaseException as error:
            try:
                self.close(opening)
            except CloudError as left:
                if isinstance(error, Exception):
                    raise left from error  # worse than what it failed by: something stays open
                log.warning("The gate could not be closed again: %s", left)
            raise

    def close(self, opening: str | None = None) -> None:
        """Close one opening, or all: no new tokens, and the issued ones may do nothing.

        Of the two warm ones, the last to be closed takes the assignments that they share. Whatever
        goes wrong with one deletion, the others are made; then what went wrong is raised.
        """
        with ExitStack() as every:
            every.callback(self._take_assignments, opening)  # runs last, in any case
            standing = list(self._credentials())
            others = {one.opening for one in standing} - {opening}
            if opening in WARM and others & set(WARM):
                every.pop_all()
            for credential in standing:
                if opening in (None, credential.opening):
                    every.callback(self._forget, credential)

    def _take_assignments(self, opening: str | None) -> None:
        with ExitStack() as every:
            for assignment in self._assignments():
                if opening is None or self._belongs(assignment, opening):
                    every.callback(self._unassign, assignment)

    def status(self) -> tuple[Opening, ...]:
        """The openings that stand, past their time or not: on Azure none closes by itself."""
        assignments = list(self._assignments())
        found = []
        for credential in self._credentials():
            opening = credential.opening
            own = [one["properties"] for one in assignments if self._belongs(one, opening)]
            until = next((_until(one) for one in own), credential.until)
            found.append(Opening(opening, until, tuple(one["scope"] for one in own)))
        return tuple(found)

    def close_overdue(self) -> int:
        """Close what nobody came to close at its time: a process that opened may have died.

        A federated credential goes by its own time, too: its role assignment may have been another
        opening's, and be gone. Its code would let in with what is opened next. Returns how many
        role assignments that took, and credentials without one.
        """
        overdue = [one for one in self._assignments() if _is_over(_until(one["properties"]))]
        alone = 0
        with ExitStack() as every:
            for assignment in overdue:
                every.callback(self._unassign, assignment)
            for credential in list(self._credentials()):
                has_one = any(self._belongs(one, credential.opening) for one in overdue)
                if has_one or _is_over(credential.until):
                    every.callback(self._forget, credential)
                    alone += not has_one
        return len(overdue) + alone

    def _scopes(self, resources: Sequence[str]) -> list[str]:
        """The resources as scopes, each once. Nothing wider than a resource is ever opened."""
        if not resources:
            raise BadInput("resources", "the gate opens for named resources.", "Name them.")
        scopes = list(dict.fromkeys(one.lower().rstrip("/") for one in resources))
        for scope in scopes:
            if not self._one_resource.fullmatch(scope):
                raise BadInput("resources", f"{scope!r} is no resource of this subscription.")
        return scopes

    def _assign(self, opening: str, principal: str, scope: str, until: datetime) -> None:
        assignment = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        properties = {
            "roleDefinitionId": f"{self._subscription}/providers/Microsoft.Authorization"
            f"/roleDefinitions/{self._role}",
            "principalId": principal,
            "principalType": "ServicePrincipal",
            "description": f"{_UNTIL}{timestamp(until)}",
        }
        try:
            self._arm.request(
                "PUT",
                f"{assignment}/{self._assignment_name(opening, scope)}",
                _AUTHORIZATION_API,
                {"properties": properties},
            )
        except Conflict as conflict:
            if conflict.code != "RoleAssignmentExists":  # by another opening that stands
                raise

    def _trust(self, opening: str, subject: str, until: datetime) -> None:
        collection = f"{self._identity}/federatedIdentityCredentials"
        for other in self._arm.members(collection, _IDENTITY_API):
            if other["properties"]["subject"] == subject:
                raise CodeInUse("this code has opened another subscription a moment ago")
        for credential in list(self._credentials()):  # a warm one's, which is renewed
            if credential.opening == opening:
                self._forget(credential)
        properties = {
            "issuer": self._issuer.url,
            "subject": subject,
            "audiences": [EXCHANGE_AUDIENCE],
        }
        _in_turn(
            self._arm.request,
            "PUT",
            f"{collection}/{self._prefix}{opening}-{int(until.timestamp())}",
            _IDENTITY_API,
            {"properties": properties},
        )

    def _forget(self, credential: _Credential) -> None:
        collection = f"{self._identity}/federatedIdentityCredentials"
        self._delete(f"{collection}/{credential.name}", _IDENTITY_API)

    def _unassign(self, assignment: dict[str, Any]) -> None:
        self._delete(assignment["id"], _AUTHORIZATION_API)

    def _delete(self, what: str, api_version: str) -> None:
        """Take away what is open, again where Azure was busy, or its answer was lost."""
        _surely(_in_turn, self._arm.request, "DELETE", what, api_version)

    def _credentials(self) -> Iterator[_Credential]:
        """The federated credentials of the subscription's openings."""
        collection = f"{self._identity}/federatedIdentityCredentials"
        for credential in self._arm.members(collection, _IDENTITY_API):
            name = str(credential["name"])
            if name.startswith(self._prefix):
                opening, _, until = name.removeprefix(self._prefix).partition("-")
                ends = datetime.fromtimestamp(int(until), UTC) if until.isdecimal() else None
                yield _Credential(name, opening, ends)

    def _assignments(self) -> Iterator[dict[str, Any]]:
        """What the remediator has been given in this subscription, on single resources."""
        found = self._arm.members(
            f"{self._subscription}/providers/Microsoft.Authorization/roleAssignments",
            _AUTHORIZATION_API,
            f"&$filter=principalId%20eq%20'{self._principal()}'",
        )
        for assignment in found:
            given = assignment["properties"]
            ours = given["roleDefinitionId"].lower().endswith(f"/{self._role}")
            scope = given["scope"].lower()
            in_group = scope.startswith(f"{self._subscription}/resourcegroups/")
            if ours and (in_group or self._one_resource.fullmatch(scope)):
                yield assignment

    def _principal(self) -> str:
        """The object id of the identity, which role assignments are about."""
        identity = self._arm.request("GET", self._identity, _IDENTITY_API)
        return str(identity["properties"]["principalId"])

    @property
    def _role(self) -> str:
        """The bare id of the role's definition: it has an ARM id in every subscription."""
        return self._source.remediator_role.rpartition("/")[2].lower()

    def _assignment_name(self, opening: str, scope: str) -> str:
        """The same for the same opening and scope, so that closing knows its own.

        The two warm openings share theirs: one is renewed while the other stands.
        """
        whose = WARM[0] if opening in WARM else opening
        name = f"{self._source.gate_id}|{whose}|{scope.lower()}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    def _belongs(self, assignment: dict[str, Any], opening: str) -> bool:
        scope = assignment["properties"]["scope"]
        return bool(assignment["name"].lower() == self._assignment_name(opening, scope))


# Azure writes an identity's credentials one at a time, and answers 409 to the others.
_in_turn = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(6),
    wait=wait_random(0.5, 3),
    reraise=True,
)


_surely = Retrying(
    retry=retry_if_exception_type((CloudTimeout, Throttled, UnsettledWrite)),
    stop=stop_after_attempt(3),
    wait=wait_random(0.5, 3),
    reraise=True,
)


def opened_subscriptions(source: AzureSource, credential: TokenCredential) -> tuple[str, ...]:
    """The subscriptions that an opening's federated credential names, in order."""
    home = source.remediator_identity.split("/")[2]
    arm = Arm(source, home, credential)
    collection = f"{source.remediator_identity}/federatedIdentityCredentials"
    found = set()
    for one in arm.members(collection, _IDENTITY_API):
        named = one["name"].removeprefix(CREDENTIAL).partition("-")[0]
        if one["name"].startswith(CREDENTIAL) and re.fullmatch(r"[0-9a-f]{32}", named):
            found.add(str(uuid.UUID(named)))
    arm.close()
    return tuple(sorted(found))


def _is_over(until: datetime | None) -> bool:
    return until is not None and until <= datetime.now(UTC)


def _until(properties: dict[str, Any]) -> datetime | None:
    description = properties.get("description") or ""
    return moment(description.removeprefix(_UNTIL))
