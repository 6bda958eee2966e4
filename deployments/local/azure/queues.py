"""The emulated queues of storage accounts: https://127.0.0.1:PORT/<account>/<queue>, by REST.

Written after learn.microsoft.com/rest/api/storageservices/queue-service-rest-api. Only bearer
tokens are taken, as by an account with allowSharedKeyAccess off.
"""

from __future__ import annotations

import base64
import email.utils
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree

from aiohttp import web

from deployments.local.azure.entra import STORAGE_AUDIENCE, TokenService
from deployments.local.azure.protocol import ArmError, Caller
from deployments.local.azure.storage import ACCOUNT_TYPE
from deployments.local.azure.tenant import Tenant

QUEUE_TYPE = f"{ACCOUNT_TYPE}/queueServices/queues"
MESSAGES = f"{QUEUE_TYPE}/messages"
MOST_MESSAGES = 32  # of one Get Messages
LARGEST = 64 * 1024  # bytes of one message, as it is sent
WEEK = 7 * 24 * 3600
# Bearer tokens are taken since this version of the service.
OLDEST_VERSION = "2017-11-09"
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")


class QueueError(Exception):
    """An answer of the queue service that is not a success."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.more = more
        self.headers: dict[str, str] = {}


@dataclass(slots=True)
class QueuedMessage:
    """A message as it stands. Times are the tenant's clock's; ``visible`` is when it shows next."""

    text: str
    inserted: float
    expires: float
    visible: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    receipt: str = ""
    taken: int = 0  # times it has been given out


@dataclass(slots=True)
class Queue:
    """One queue. ``id`` is its ARM id; access is judged there and above it."""

    id: str
    clock: Callable[[], float]
    messages: dict[str, QueuedMessage] = field(default_factory=dict)

    def put(self, text: str, *, after: float = 0.0, lives: float = WEEK) -> QueuedMessage:
        """Add a message that shows ``after`` so many seconds and is gone when its life is over."""
        now = self.clock()
        message = QueuedMessage(text, now, now + lives, now + after)
        message.receipt = _receipt()
        self.messages[message.id] = message
        return message

    def standing(self) -> list[QueuedMessage]:
        """What is in it, those in somebody's hands included."""
        now = self.clock()
        for message in [one for one in self.messages.values() if one.expires <= now]:
            del self.messages[message.id]
        return list(self.messages.values())

    def shown(self, most: int) -> list[QueuedMessage]:
        now = self.clock()
        return [one for one in self.standing() if one.visible <= now][:most]

    def find(self, message_id: str, receipt: str) -> QueuedMessage:
        message = next((one for one in self.standing() if one.id == message_id), None)
        if message is None:
            raise QueueError(404, "MessageNotFound", "The specified message does not exist.")
        if message.receipt != receipt:
            raise QueueError(
                400,
                "PopReceiptMismatch",
                "The specified pop receipt did not match the pop receipt for a dequeued message.",
            )
        return message


class QueueService:
    """The queues of all storage accounts of a tenant, and their REST API.

    ``busy``: answer everything with 503 ServerBusy, as an account that is asked too much does.
    """

    def __init__(self, tenant: Tenant, tokens: TokenService) -> None:
        self.tenant = tenant
        self.tokens = tokens
        self.busy = False
        self._queues: dict[str, Queue] = {}
        for queue in tenant.queues:
            self.add(queue)

    def add(self, queue_id: str) -> Queue:
        """Make a queue, by its ARM id."""
        made = Queue(queue_id, lambda: self.tenant.clock())
        self._queues[queue_id.lower()] = made
        return made

    def find(self, queue_id: str) -> Queue | None:
        """A queue by its ARM id; none when it, or the account that held it, is not there."""
        account = queue_id.lower().partition("/queueservices/")[0]
        return self._queues.get(queue_id.lower()) if self.tenant.resource(account) else None

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1024 * 1024)
        application.router.add_route("*", "/{account}/{queue}", self._handle)
        application.router.add_route("*", "/{account}/{queue}/messages", self._handle)
        application.router.add_route("*", "/{account}/{queue}/messages/{message}", self._handle)
        application.router.add_route("*", "/{path:.*}", self._nowhere)
        return application

    async def _nowhere(self, request: web.Request) -> web.Response:
        return _refusal(
            request, QueueError(400, "InvalidUri", "The request URI names no queue or message.")
        )

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            if self.busy:
                raise QueueError(503, "ServerBusy", "The server is busy.")
            version = request.headers.get("x-ms-version", "")
            if not _VERSION.fullmatch(version) or version < OLDEST_VERSION:
                raise QueueError(
                    400,
                    "InvalidHeaderValue",
                    "The value for one of the HTTP headers is not in the correct format.",
                    HeaderName="x-ms-version",
                    HeaderValue=version,
                )
            caller = self._caller(request)
            return await self._answer(request, caller)
        except QueueError as error:
            return _refusal(request, error)

    def _caller(self, request: web.Request) -> Caller:
        header = request.headers.get("Authorization")
        challenge = (
            f"Bearer authorization_uri={self.tokens.authority}/{self.tenant.id}/oauth2/authorize "
            f"resource_id={STORAGE_AUDIENCE}"
        )
        if not header:
            refusal = QueueError(
                401,
                "NoAuthenticationInformation",
                "Server failed to authenticate the request. Please refer to the information in "
                "the www-authenticate header.",
            )
            refusal.headers["WWW-Authenticate"] = challenge
            raise refusal
        if not header.lower().startswith("bearer "):
            raise QueueError(
                403,
                "KeyBasedAuthenticationNotPermitted",
                "Key based authentication is not permitted on this storage account.",
            )
        try:
            return self.tokens.authenticate(header, STORAGE_AUDIENCE, self._own_audience(request))
        except ArmError as error:
            refusal = QueueError(
                401,
                "InvalidAuthenticationInfo",
                "Server failed to authenticate the request. Please refer to the information in "
                "the www-authenticate header.",
                AuthenticationErrorDetail=error.message,
            )
            refusal.headers["WWW-Authenticate"] = challenge
            raise refusal from None

    def _own_audience(self, request: web.Request) -> str:
        return f"https://{request.match_info['account']}.queue.core.windows.net"

    async def _answer(self, request: web.Request, caller: Caller) -> web.Response:
        where = request.match_info
        account = self._account(where["account"])
        queue_id = f"{account}/queueServices/default/queues/{where['queue']}"
        deep = "messages" if request.path.endswith("/messages") else ""
        deep = "message" if "message" in where else deep
        match request.method, deep:
            case (("GET" | "HEAD"), "") if request.query.get("comp") == "metadata":
                self._allow(caller, queue_id, f"{QUEUE_TYPE}/read", data=False)
                return self._metadata(request, self._queue(queue_id))
            case "GET", "messages" if request.query.get("peekonly", "").lower() == "true":
                self._allow(caller, queue_id, f"{MESSAGES}/read")
                return self._peek(request, self._queue(queue_id))
            case "GET", "messages":
                self._allow_taking(caller, queue_id)
                return self._take(request, self._queue(queue_id))
            case "POST", "messages":
                self._allow(caller, queue_id, f"{MESSAGES}/add/action", f"{MESSAGES}/write")
                return await self._put(request, self._queue(queue_id))
            case "DELETE", "messages":
                self._allow(caller, queue_id, f"{MESSAGES}/delete")
                self._queue(queue_id).messages.clear()
                return _success(request, 204)
            case "DELETE", "message":
                self._allow(caller, queue_id, f"{MESSAGES}/process/action", f"{MESSAGES}/delete")
                return self._delete(request, self._queue(queue_id))
            case "PUT", "message":
                self._allow(caller, queue_id, f"{MESSAGES}/write")
                return await self._update(request, self._queue(queue_id))
        raise QueueError(
            405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb."
        )

    # --- who may ------------------------------------------------------------------------------

    def _account(self, name: str) -> str:
        """The ARM id of a storage account. By its name alone: it is unique in all of Azure."""
        for queue in self._queues.values():
            account = queue.id.partition("/queueServices/")[0]
            if account.endswith(f"/{name}") and self.tenant.resource(account):
                return account
        for resource in self.tenant.every_resource():
            if resource.type == ACCOUNT_TYPE and resource.name == name:
                return resource.id
        # Where every account has a host of its own, this one's name does not resolve.
        raise QueueError(404, "ResourceNotFound", "The specified account does not exist.")

    def _queue(self, queue_id: str) -> Queue:
        found = self.find(queue_id)
        if found is None:
            raise QueueError(404, "QueueNotFound", "The specified queue does not exist.")
        return found

    def _allow(self, caller: Caller, scope: str, *any_of: str, data: bool = True) -> None:
        if not any(self._allowed(caller, scope, one, data=data) for one in any_of):
            raise QueueError(
                403,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
            )

    def _allow_taking(self, caller: Caller, scope: str) -> None:
        """Get Messages takes one action of its own, or two others together."""
        both = (f"{MESSAGES}/delete", f"{MESSAGES}/read")
        if not all(self._allowed(caller, scope, one, data=True) for one in both):
            self._allow(caller, scope, f"{MESSAGES}/process/action")

    def _allowed(self, caller: Caller, scope: str, operation: str, *, data: bool) -> bool:
        now = self.tenant.clock()
        return self.tenant.access.allowed(caller.object_id, operation, scope, now, data=data)

    # --- what is asked for --------------------------------------------------------------------

    def _metadata(self, request: web.Request, queue: Queue) -> web.Response:
        count = str(len(queue.standing()))
        return _success(request, 200, headers={"x-ms-approximate-messages-count": count})

    def _peek(self, request: web.Request, queue: Queue) -> web.Response:
        most = _number(request, "numofmessages", 1, 1, MOST_MESSAGES)
        return _listing(request, 200, (_peeked(one) for one in queue.shown(most)))

    def _take(self, request: web.Request, queue: Queue) -> web.Response:
        most = _number(request, "numofmessages", 1, 1, MOST_MESSAGES)
        hidden = _number(request, "visibilitytimeout", 30, 1, WEEK)
        taken = queue.shown(most)
        for message in taken:
            message.visible = self.tenant.clock() + hidden
            message.receipt = _receipt()
            message.taken += 1
        return _listing(request, 200, (_given(one) for one in taken))

    async def _put(self, request: web.Request, queue: Queue) -> web.Response:
        lives = _number(request, "messagettl", WEEK, -1, 2**31)
        if lives == 0:
            raise _out_of_range("messagettl", "0", 1, 2**31)
        after = _number(request, "visibilitytimeout", 0, 0, WEEK)
        if lives != -1 and after >= lives:
            raise _out_of_range("visibilitytimeout", str(after), 0, lives - 1)
        text = await _message_text(request)
        message = queue.put(text, after=after, lives=float("inf") if lives == -1 else lives)
        return _listing(request, 201, iter([_receipted(message)]))

    def _delete(self, request: web.Request, queue: Queue) -> web.Response:
        message = queue.find(request.match_info["message"], _required(request, "popreceipt"))
        del queue.messages[message.id]
        return _success(request, 204)

    async def _update(self, request: web.Request, queue: Queue) -> web.Response:
        _required(request, "visibilitytimeout")
        hidden = _number(request, "visibilitytimeout", 0, 0, WEEK)
        message = queue.find(request.match_info["message"], _required(request, "popreceipt"))
        if request.can_read_body:
            message.text = await _message_text(request)
        message.visible = self.tenant.clock() + hidden
        message.receipt = _receipt()
        return _success(
            request,
            204,
            headers={
                "x-ms-popreceipt": message.receipt,
                "x-ms-time-next-visible": _http_date(message.visible),
            },
        )


def _receipt() -> str:
    return base64.b64encode(uuid.uuid4().bytes).decode()


def _required(request: web.Request, name: str) -> str:
    value = request.query.get(name)
    if not value:
        raise QueueError(
            400,
            "MissingRequiredQueryParameter",
            "A query parameter that's mandatory for this request is not specified.",
            QueryParameterName=name,
        )
    return value


def _number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,10}", text):
        raise QueueError(
            400,
            "InvalidQueryParameterValue",
            "Value for one of the query parameters specified in the request URI is invalid.",
            QueryParameterName=name,
            QueryParameterValue=text,
        )
    if not least <= int(text) <= most:
        raise _out_of_range(name, text, least, most)
    return int(text)


def _out_of_range(name: str, value: str, least: int, most: int) -> QueueError:
    return QueueError(
        400,
        "OutOfRangeQueryParameterValue",
        "One of the query parameters specified in the request URI is outside the permissible "
        "range.",
        QueryParameterName=name,
        QueryParameterValue=value,
        MinimumAllowed=str(least),
        MaximumAllowed=str(most),
    )


async def _message_text(request: web.Request) -> str:
    body = await request.read()
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - only the fleet's own people ask here
    except ElementTree.ParseError:
        root = None
    text = root.findtext("MessageText") if root is not None else None
    if root is None or root.tag != "QueueMessage" or text is None:
        raise QueueError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.")
    if len(text.encode()) > LARGEST:
        raise QueueError(
            413,
            "RequestBodyTooLarge",
            "The request body is too large and exceeds the maximum permissible limit.",
            MaxLimit=str(LARGEST),
        )
    return text


# --- answers -----------------------------------------------------------------------------------


def _peeked(message: QueuedMessage) -> dict[str, str]:
    return {
        "MessageId": message.id,
        "InsertionTime": _http_date(message.inserted),
        "ExpirationTime": _http_date(message.expires),
        "DequeueCount": str(message.taken),
        "MessageText": message.text,
    }


def _receipted(message: QueuedMessage) -> dict[str, str]:
    return {
        "MessageId": message.id,
        "InsertionTime": _http_date(message.inserted),
        "ExpirationTime": _http_date(message.expires),
        "PopReceipt": message.receipt,
        "TimeNextVisible": _http_date(message.visible),
    }


def _given(message: QueuedMessage) -> dict[str, str]:
    return {**_receipted(message), **_peeked(message)}


def _http_date(moment: float) -> str:
    """RFC 1123. What lives for ever says the last second of the calendar, as in Azure."""
    if moment == float("inf"):
        return "Fri, 31 Dec 9999 23:59:59 GMT"
    return email.utils.formatdate(moment, usegmt=True)


def _listing(request: web.Request, status: int, items: Iterator[dict[str, str]]) -> web.Response:
    root = ElementTree.Element("QueueMessagesList")
    for item in items:
        message = ElementTree.SubElement(root, "QueueMessage")
        for name, value in item.items():
            ElementTree.SubElement(message, name).text = value
    return _success(request, status, _xml(root))


def _xml(root: ElementTree.Element) -> bytes:
    return b'<?xml version="1.0" encoding="utf-8"?>' + ElementTree.tostring(root, "utf-8")


def _success(
    request: web.Request, status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> web.Response:
    return _respond(request, status, body, headers or {})


def _refusal(request: web.Request, error: QueueError) -> web.Response:
    root = ElementTree.Element("Error")
    ElementTree.SubElement(root, "Code").text = error.code
    ElementTree.SubElement(root, "Message").text = error.message
    for name, value in error.more.items():
        ElementTree.SubElement(root, name).text = value
    body = b"" if request.method == "HEAD" else _xml(root)
    return _respond(request, error.status, body, {"x-ms-error-code": error.code, **error.headers})


def _respond(
    request: web.Request, status: int, body: bytes, headers: dict[str, str]
) -> web.Response:
    told = {
        "Server": "Windows-Azure-Queue/1.0",
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-version": request.headers.get("x-ms-version", OLDEST_VERSION),
        **headers,
    }
    if asked := request.headers.get("x-ms-client-request-id"):
        told["x-ms-client-request-id"] = asked
    content = {"content_type": "application/xml"} if body else {}
    return web.Response(status=status, body=body or None, headers=told, **content)
