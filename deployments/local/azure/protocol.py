"""What passes between ARM's front door and its resource kinds: ids, requests, replies, errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ArmError(Exception):
    """An answer of ARM that is not a success; rendered as {"error": {"code", "message"}}."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.details = details

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return {"error": error}


@dataclass(frozen=True, slots=True)
class ArmPath:
    """A request's path as ARM reads it. ``names`` is one shorter than ``types`` for a collection.

    ``scope`` is what stands before the last "/providers/": the resource group of a resource, or
    the resource that an extension such as a role assignment sits on. Everything keeps the case it
    was asked in; compare through ``key``.
    """

    text: str
    scope: str = ""
    namespace: str = ""
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.text.lower()

    @property
    def type_key(self) -> str:
        return "/".join((self.namespace, *self.types)).lower()

    @property
    def is_collection(self) -> bool:
        return len(self.types) > len(self.names)

    @property
    def name(self) -> str:
        return self.names[-1]

    @property
    def parent(self) -> str:
        """The path of the resource that holds this one, lower case: of a rule, its group."""
        return self.key.rsplit("/", 1 if self.is_collection else 2)[0]

    @property
    def segments(self) -> list[str]:
        return self.text.strip("/").split("/")

    @property
    def subscription(self) -> str:
        parts = self.segments
        named = len(parts) > 1 and parts[0].lower() == "subscriptions"
        return parts[1].lower() if named else ""

    @property
    def group(self) -> str:
        parts = self.segments
        named = len(parts) > 3 and parts[2].lower() == "resourcegroups"
        return parts[3] if named else ""


def parse_path(text: str) -> ArmPath:
    """Split a request path. Doubled and trailing slashes are forgiven, as ARM forgives them."""
    segments = [part for part in text.split("/") if part]
    clean = "/" + "/".join(segments)
    marks = [i for i, part in enumerate(segments) if part.lower() == "providers"]
    if not marks or marks[-1] + 2 >= len(segments):
        return ArmPath(clean)
    at = marks[-1]
    rest = segments[at + 2 :]
    return ArmPath(
        clean,
        scope="/" + "/".join(segments[:at]) if at else "",
        namespace=segments[at + 1],
        types=tuple(rest[0::2]),
        names=tuple(rest[1::2]),
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a bearer token speaks for: ``object_id`` is the principal that roles are given to.

    ``claims`` are the token's. ``address`` is the IP address that the call came from, and
    ``correlation`` the id that all of its doings are logged under.
    """

    object_id: str
    client_id: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    address: str = ""
    correlation: str = ""


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """One authenticated, authorized request. ``query`` has lower-case keys; ``body`` is JSON."""

    method: str
    path: ArmPath
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    caller: Caller


@dataclass(frozen=True, slots=True)
class Reply:
    """What a resource kind answers; ``body`` None sends no body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ResourceKind:
    """One resource type's behaviour. What a type does not offer stays 405."""

    type: str = ""
    api_versions: tuple[str, ...] = ()

    def get(self, request: ArmRequest) -> Reply:
        raise method_not_allowed(request.method)

    def put(self, request: ArmRequest) -> Reply:
        raise method_not_allowed(request.method)

    def patch(self, request: ArmRequest) -> Reply:
        raise method_not_allowed(request.method)

    def delete(self, request: ArmRequest) -> Reply:
        raise method_not_allowed(request.method)

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        """Every item of the collection asked for, rendered; paging and access come after."""
        raise method_not_allowed(request.method)


def method_not_allowed(method: str) -> ArmError:
    return ArmError(
        405,
        "MethodNotAllowed",
        f"The HTTP method '{method}' is not supported at this scope.",
        headers={"Allow": "GET, PUT, PATCH, DELETE"},
    )


def resource_not_found(path: ArmPath) -> ArmError:
    pairs = zip(path.types, path.names, strict=False)
    kind = "/".join((path.namespace, *(part for pair in pairs for part in pair)))
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{kind}' under resource group '{path.group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )


def bad_content(message: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", message)


def body_object(request: ArmRequest) -> dict[str, Any]:
    if not isinstance(request.body, dict):
        raise bad_content("The request content was invalid: a JSON object is required.")
    return request.body


def properties_of(body: Mapping[str, Any]) -> dict[str, Any]:
    properties = body.get("properties")
    if properties is None:
        return {}
    if not isinstance(properties, dict):
        raise bad_content("The request content was invalid: 'properties' must be an object.")
    return properties


def tags_of(body: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a body, or none. At most 50, names up to 512 characters, values up to 256."""
    tags = body.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(v, str) for v in tags.values()):
        raise ArmError(400, "InvalidTags", "Tags must be an object of names and string values.")
    if len(tags) > 50 or any(len(k) > 512 or len(v) > 256 for k, v in tags.items()):
        raise ArmError(400, "InvalidTags", "There are too many tags, or one is too long.")
    return dict(tags)


def check_preconditions(request: ArmRequest, etag: str | None, resource_id: str) -> None:
    """Honour If-Match and If-None-Match. ``etag`` None means that the resource does not exist."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and not _matches(wanted, etag):
        found = f"etag {etag}" if etag else "no existing etag"
        raise _precondition_failed(
            "PreconditionFailedEtagMismatch",
            f"Etag provided in if-match header {wanted} does not match {found} of resource "
            f"{resource_id} in NRP data store.",
        )
    unwanted = request.headers.get("If-None-Match")
    if unwanted is not None and request.method != "GET" and _matches(unwanted, etag):
        raise _precondition_failed(
            "PreconditionFailedEtagMatch", f"Resource {resource_id} exists already."
        )


def _matches(header: str, etag: str | None) -> bool:
    if etag is None:
        return False
    offered = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in offered or etag.removeprefix("W/") in offered


def _precondition_failed(code: str, message: str) -> ArmError:
    return ArmError(
        412,
        "PreconditionFailed",
        "Precondition failed.",
        details=[{"code": code, "message": message}],
    )
