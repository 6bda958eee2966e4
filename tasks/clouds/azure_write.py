"""Writing to Azure: a session of the remediator for one fix of one resource, through its SDK."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from azure.core.credentials import AccessTokenInfo, TokenCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.policies import RetryPolicy
from azure.core.rest import HttpRequest
from azure.identity import ClientAssertionCredential
from pydantic import SecretStr

from tasks.calls import CallMade, note
from tasks.clouds.issuer import assertion
from tasks.clouds.noting import identity_in, noting_arm
from tasks.clouds.propagation import NOT_OPENED, Propagation, patiently
from tasks.clouds.sdk_errors import UnsettledWrite, azure_errors, hiding
from tasks.clouds.session_policy import permission_of
from tasks.errors import (
    AccessRefused,
    BadInput,
    CloudError,
    Conflict,
    GateRefused,
    ResourceGone,
    Throttled,
)
from tasks.inventory import AzureSource, Issuer
from tasks.model import Call, Resource, Step

if TYPE_CHECKING:
    from azure.core.polling import LROPoller
    from azure.mgmt.resource.resources import ResourceManagementClient

T = TypeVar("T")

EXCHANGE_AUDIENCE = "api://AzureADTokenExchange"  # what Entra wants an outside token to be for
PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
OPERATION_SECONDS = 300.0  # how long an asynchronous operation may take
LONGEST_WAIT = 60.0  # what a Retry-After may ask of us
POLL_SECONDS = 2
UNDO_SECONDS = 10.0  # a 403 in the middle may be a part of ARM that does not know yet

# Entra's numbers for "no federated credential matches": none there, or issuer, audience, subject.
_NOT_FEDERATED = {"70021", "700211", "700212", "700213"}
_THROTTLED = HTTPStatus.TOO_MANY_REQUESTS
_AADSTS = re.compile(r"AADSTS(\d+)")


class Arm:
    """Azure Resource Manager for one identity: small reads, and writes seen to their end."""

    def __init__(self, source: AzureSource, subscription: str, credential: TokenCredential) -> None:
        # Imported here: only a session needs it, and most processes never write.
        from azure.mgmt.resource.resources import ResourceManagementClient

        self.go_on: Callable[[], None] = lambda: None  # asked before a throttled write's next try
        self._origin = source.resource_manager
        self._client: ResourceManagementClient = ResourceManagementClient(
            credential,
            subscription,
            base_url=source.resource_manager,
            credential_scopes=[token_scope(source)],
            connection_verify=source.ca_file or True,
            connection_timeout=10,
            read_timeout=60,
            polling_interval=POLL_SECONDS,
            retry_policy=_BoundedRetry(lambda: self.go_on()),
        )

    def request(
        self, method: str, resource_id: str, api_version: str, body: Any = None, query: str = ""
    ) -> dict[str, Any]:
        """One call that is done when it answers: the answer's JSON, {} when it has none."""
        url = f"{self._origin}{resource_id}?api-version={api_version}{query}"
        return self._send(HttpRequest(method, url, json=body), f"{method} {resource_id}")

    def members(
        self, collection: str, api_version: str, query: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Every member of a collection, page after page."""
        page = self.request("GET", collection, api_version, query=query)
        yield from page.get("value", ())
        while following := page.get("nextLink"):
            if not following.startswith(f"{self._origin}/"):
                raise CloudError("a page points to another host", operation=f"GET {collection}")
            page = self._send(HttpRequest("GET", following), f"GET {collection}")
            yield from page.get("value", ())

    def etag(self, resource_id: str, api_version: str) -> str | None:
        """The resource's ETag; empty when its provider has none, None when it does not exist."""
        try:
            return str(self.request("GET", resource_id, api_version).get("etag") or "")
        except ResourceGone:
            return None

    def write(self, call: Call, etag: str | None, *, undo: bool = False) -> None:
        """Make a call and wait for its end. The ETag (see ``etag``) is what must still be there."""
        resources = self._client.resources
        common: dict[str, Any] = {"api_version": call.service, "headers": _only_if(call, etag)}
        body = dict(call.params)
        made = CallMade(operation=call.operation, target=call.target, undo=undo)
        poller: LROPoller[Any]
        with azure_errors(f"{call.operation} {call.target}"), noting_arm(made) as hook:
            common["raw_response_hook"] = hook
            if call.operation == "PUT":
                poller = resources.begin_create_or_update_by_id(call.target, body, **common)
            elif call.operation == "PATCH":
                poller = resources.begin_update_by_id(call.target, body, **common)
            elif call.operation == "DELETE":
                poller = resources.begin_delete_by_id(call.target, **common)
            else:
                raise BadInput("operation", f"{call.operation} is no write on Azure.")
        try:
            with azure_errors(f"{call.operation} {call.target}"):
                poller.wait(OPERATION_SECONDS)
        except CloudError as error:  # it had been accepted: what it did before it failed is open
            raise UnsettledWrite(
                error.message, code=error.code, operation=error.operation
            ) from None
        if not poller.done():
            raise UnsettledWrite("did not end in time", operation=f"{call.operation} {call.target}")

    def close(self) -> None:
        self._client.close()

    def _send(self, request: HttpRequest, operation: str) -> dict[str, Any]:
        with azure_errors(operation):
            response = self._client.send_request(request)
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                raise _refusal(response)
        answer = response.json() if response.content else {}
        return answer if isinstance(answer, dict) else {}


class AzureSession:
    """An identity's token, and a promise to write to one resource, by the fix's operations only.

    What holds it to the resource is its role assignment; the promise keeps a mistake from finding
    that out the hard way where a team has assigned the role more widely.
    """

    def __init__(
        self, arm: Arm, resource: Resource, allowed: Collection[str], patience: Propagation
    ) -> None:
        self._arm = arm
        arm.go_on = self._go_on
        self._resource = resource
        self._allowed = {name.lower() for name in allowed}
        self._patience = patience
        self._undoing = False  # from then on nothing stops it
        self._writing = False  # becomes true with the first write that was let through

    def apply(self, step: Step) -> None:
        """Make the step's call. Raises CloudError; Conflict when the resource is not as planned."""
        self._check(step.call)
        if not self._writing and self._resource.etag:
            self._check_unchanged(step.call.service)
        self._write(step.call)

    def undo(self, step: Step) -> None:
        """Make the step's undo calls, in order. What is gone already needs no deletion."""
        self._undoing = True
        for call in step.undo:
            self._check(call)
            try:
                self._write(call, undo=True)
            except ResourceGone:
                if call.operation != "DELETE":
                    raise

    def close(self) -> None:
        """Let go of connections. The token outlives this; the customer's closing ends it."""
        self._arm.close()

    def _check(self, call: Call) -> None:
        target, own = call.target.lower().rstrip("/"), self._resource.id.lower()
        inside = target == own or (target.startswith(f"{own}/") and "/." not in target)
        if not inside or permission_of(call).lower() not in self._allowed:
            raise AccessRefused(
                "this session is not for that", operation=f"{call.operation} {call.target}"
            )

    def _check_unchanged(self, api_version: str) -> None:
        """Between the caller's last look and the first write, nobody may have been here."""
        now = self._patiently(lambda: self._arm.etag(self._resource.id, api_version))
        if now != self._resource.etag:
            raise Conflict("it changed a moment ago", code="PreconditionFailed")

    def _write(self, call: Call, *, undo: bool = False) -> None:
        def write() -> None:
            self._arm.write(call, self._arm.etag(call.target, call.service), undo=undo)

        if undo and self._writing:
            self._patiently(write, most=UNDO_SECONDS)
        elif self._writing:
            write()
        else:
            self._patiently(write)
        self._writing = True

    def _go_on(self) -> None:
        """Asked before another try; raises where a halt stops it."""
        if not self._undoing:
            self._patience.go_on()

    def _patiently(self, ask: Callable[[], T], *, most: float = math.inf) -> T:
        """A new role assignment takes time to be known everywhere: until then ARM says 403."""
        return patiently(
            ask,
            again_for=may_be_propagation,
            seconds=min(most, self._patience.access),
            what="The gate does not let us write yet",
            say=self._patience.say,
            go_on=self._go_on,
        )


def open_azure(
    source: AzureSource,
    issuer: Issuer,
    resource: Resource,
    allowed: Collection[str],
    code: SecretStr,
    patience: Propagation,
) -> AzureSession:
    """Sign in as the remediator's identity with an assertion that holds the code.

    Raises GateRefused when no federated credential matches, CloudError when Entra cannot be asked.
    """
    subject = SecretStr(f"{source.gate_id}:{code.get_secret_value()}")
    credential = _GateCredential(
        source.tenant,
        source.remediator_client_id,
        lambda: assertion(issuer, subject.get_secret_value(), EXCHANGE_AUDIENCE).get_secret_value(),
        **identity_options(source),
    )
    try:
        with (
            hiding(subject.get_secret_value(), code.get_secret_value()),
            azure_errors("sign in"),
        ):
            token = credential.get_token(token_scope(source))
    except AccessRefused as refusal:
        if not _NOT_FEDERATED & set(_AADSTS.findall(refusal.message)):
            raise
        raise GateRefused(NOT_OPENED) from None
    note(
        CallMade(
            operation="session",
            target=resource.id,
            identity=identity_in(token.token, source.remediator_client_id),
            until=datetime.fromtimestamp(token.expires_on, UTC),
        )
    )
    arm = Arm(source, resource.account, credential)
    return AzureSession(arm, resource, allowed, patience)


def identity_options(source: AzureSource) -> dict[str, Any]:
    """What every azure-identity credential of a source is made with."""
    return {
        "authority": source.authority,
        "disable_instance_discovery": source.authority != PUBLIC_AUTHORITY,
        "connection_verify": source.ca_file or True,
        "connection_timeout": 10,
        "read_timeout": 30,
        "retry_total": 3,
    }


def token_scope(source: AzureSource) -> str:
    """As the SDK writes it: one slash between the audience and .default."""
    return f"{source.audience.rstrip('/')}/.default"


class _GateCredential(ClientAssertionCredential):
    """Entra's refusal repeats the subject, and azure-identity logs refusals: keep the number only.

    The base class logs what ``_request_token`` raises, so it is cleaned before that.
    """

    def _request_token(self, *scopes: str, **kwargs: Any) -> AccessTokenInfo:
        try:
            return super()._request_token(*scopes, **kwargs)
        except ClientAuthenticationError as error:
            numbers = dict.fromkeys(_AADSTS.findall(str(error.message)))
        named = ", ".join(f"AADSTS{number}" for number in numbers) or "no number"
        raise ClientAuthenticationError(message=f"Entra refused the assertion ({named})")


class _BoundedRetry(RetryPolicy[Any, Any]):
    """The SDK's retries, but a Retry-After of an hour is an answer, not an order.

    A write is repeated only when Azure says to come back: one whose answer was lost may have
    worked, and its repetition would then look like somebody else's change (412). ``go_on`` is asked
    before that, and raises to stop it: Azure may have asked for a minute.
    """

    def __init__(self, go_on: Callable[[], None] = lambda: None) -> None:
        self._go_on = go_on
        super().__init__(retry_total=4, retry_backoff_max=20, retry_on_methods=["GET", "HEAD"])

    def sleep(self, settings: dict[str, Any], transport: Any, response: Any = None) -> None:
        super().sleep(settings, transport, response=response)
        # A look, or how a write goes on that has been taken, is not stopped: nothing is written by
        # it. What is said of a write that was throttled is that it has not been made.
        throttled = response is not None and response.http_response.status_code == _THROTTLED
        if throttled and response.http_request.method not in ("GET", "HEAD"):
            self._go_on()

    def get_retry_after(self, response: Any) -> float | None:
        asked = super().get_retry_after(response)
        if asked is not None and asked > LONGEST_WAIT:
            # Not an AzureError: those are retried.
            raise Throttled(f"Azure asks to come back in {asked:.0f} s", code="TooManyRequests")
        return asked


def _refusal(response: Any) -> HttpResponseError:
    from azure.mgmt.core.exceptions import ARMErrorFormat

    return HttpResponseError(response=response, error_format=ARMErrorFormat)


def _only_if(call: Call, etag: str | None) -> Mapping[str, str]:
    """The precondition that nobody else has written since the ETag was read."""
    if etag is None:
        return {"If-None-Match": "*"} if call.operation == "PUT" else {}
    return {"If-Match": etag} if etag else {}


def may_be_propagation(error: BaseException) -> bool:
    """Whether a role assignment that is not in force, or not known yet, is at fault."""
    return isinstance(error, AccessRefused) and error.code.endswith("AuthorizationFailed")


def prepare_azure() -> None:
    """Import what a session needs: most processes never write, and do without."""
    import azure.mgmt.resource.resources  # noqa: F401
