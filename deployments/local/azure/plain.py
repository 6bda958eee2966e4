"""Resource types that are settings and nothing more: a table of shapes, one behaviour for all.

A shape says which properties a client may write, and how they must look; what a type does beside
that (a storage account's names, a security rule's priorities) has a module of its own. Written
after each type's page of the ARM REST reference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.local.azure.protocol import (
    ArmError,
    ArmRequest,
    Reply,
    ResourceKind,
    body_object,
    check_preconditions,
    method_not_allowed,
    parse_path,
    properties_of,
    resource_not_found,
    tags_of,
)
from deployments.local.azure.tenant import Resource, Tenant

_GROUP_DEPTH = 4  # slashes of a resource group's id

# Whether a value may stand where it does.
Check = Callable[[Any], bool]


def BOOLEAN(value: Any) -> bool:
    return isinstance(value, bool)


def TEXT(value: Any) -> bool:
    return isinstance(value, str)


def OBJECT(value: Any) -> bool:
    return isinstance(value, dict)


def LIST(value: Any) -> bool:
    return isinstance(value, list)


def one_of(*words: str) -> Check:
    return lambda value: value in words


def whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def shape(**checks: Check) -> Check:
    """An object of which these are the members; none must be there."""
    return lambda value: (
        isinstance(value, dict)
        and all(
            name in checks and (one is None or checks[name](one)) for name, one in value.items()
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A resource type: what may be written, what is there without being written, and how.

    ``methods`` are what the type offers beside GET. ``top`` are members beside properties that a
    body may have (sku, kind, identity) with what they must look like. ``defaults`` are the
    properties of one that is made without saying them. A PATCH merges objects at any depth; a PUT
    puts the body in the place of what was there, but for ``kept`` properties. ``always`` names the
    singletons that stand below every parent, or subscription, without being made.
    ``variants`` are the shapes of single names where a type's singletons are each a thing of its
    own, as an app's configurations are. ``located``: it has a location; children and settings have
    none. ``extension``: it sits on any other resource, below its "/providers/", or on a group or
    subscription; ``wide``: the list of a subscription has those of all that is in it. ``listed``
    are the properties that a list shows, where it leaves out some. ``below`` is told what holds a
    child (holder, request) before anything is done with it, and may refuse. ``after`` is told of
    each write (resource, request) and may refuse it or fill things in.
    """

    type: str
    api_versions: tuple[str, ...]
    properties: Mapping[str, Check]
    methods: str = "PUT PATCH DELETE"
    top: Mapping[str, Check] = field(default_factory=dict)
    read_only: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    always: tuple[str, ...] = ()
    variants: Mapping[str, Shape] = field(default_factory=dict)
    located: bool = True
    of_subscription: bool = False
    created: int = 201
    etags: bool = False
    extension: bool = False
    wide: bool = False
    listed: frozenset[str] = frozenset()
    below: Callable[[Resource, ArmRequest], None] = lambda _holder, _request: None
    after: Callable[[Plain, ArmRequest], None] = lambda _one, _request: None


@dataclass(kw_only=True)
class Plain(Resource):
    """A resource of a shape."""

    properties: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    etag: str = ""

    def render(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": self.id, "name": self.name, "type": self.type, **self.top}
        if self.location:
            shown |= {"location": self.location, "tags": dict(self.tags)}
        if self.etag:
            shown["etag"] = self.etag
        return {**shown, "properties": copy.deepcopy(self.properties)}

    def summary(self) -> dict[str, Any]:
        return {**super().summary(), **self.top}


class PlainKind(ResourceKind):
    """The behaviour of one shape."""

    def __init__(self, tenant: Tenant, given: Shape) -> None:
        self.tenant = tenant
        self.shape = given
        self.type = given.type
        self.api_versions = given.api_versions
        self.of_subscription = given.of_subscription
        self.extension = given.extension
        self._variants = {
            name.lower(): PlainKind(tenant, one) for name, one in given.variants.items()
        }

    def _of(self, name: str) -> PlainKind:
        return self._variants.get(name.lower(), self)

    def get(self, request: ArmRequest) -> Reply:
        if (own := self._of(request.path.name)) is not self:
            return own.get(request)
        return Reply(200, self._require(request).render())

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        path = request.path
        if len(path.types) > 1 or self.extension:
            inside = f"{path.scope.lower()}/" if self.shape.wide else f"{path.key}/"
            self._require_parent(request)
            for name in self.shape.always:
                self._of(name)._standing(f"{path.text}/{name}", name)
            return [
                self._in_list(one.render())
                for one in self.tenant.resources(path.subscription, "", self.type)
                if one.id.lower().startswith(inside)
            ]
        for name in self.shape.always:
            self._standing(f"{path.text}/{name}", name)
        found = self.tenant.resources(path.subscription, path.group, self.type)
        return [one.render() for one in found]

    def _in_list(self, shown: dict[str, Any]) -> dict[str, Any]:
        if not self.shape.listed:
            return shown
        properties = {
            name: one for name, one in shown["properties"].items() if name in self.shape.listed
        }
        return {**shown, "properties": properties}

    def put(self, request: ArmRequest) -> Reply:
        if (own := self._of(request.path.name)) is not self:
            return own.put(request)
        self._offers("PUT")
        self._require_parent(request)
        body = body_object(request)
        given, top = self._checked(body), self._top(body)
        standing = self._find(request)
        self._preconditions(request, standing)
        if standing is None:
            made = self._make(request, body, given, top)
            self.shape.after(made, request)
            self.tenant.add_resource(made)
            return Reply(self.shape.created, made.render())
        before = copy.deepcopy(standing.properties)
        kept = {
            name: value
            for name, value in before.items()
            if name in self.shape.kept or name in self.shape.read_only
        }
        standing.properties = {**copy.deepcopy(dict(self.shape.defaults)), **kept, **given}
        standing.top |= top
        standing.tags = tags_of(body)
        return self._written(standing, before, request)

    def patch(self, request: ArmRequest) -> Reply:
        if (own := self._of(request.path.name)) is not self:
            return own.patch(request)
        self._offers("PATCH")
        self._require_parent(request)
        standing, body = self._require(request), body_object(request)
        self._preconditions(request, standing)
        given, top = self._checked(body), self._top(body)
        before = copy.deepcopy(standing.properties)
        standing.properties = merged(before, given)
        standing.top = merged(standing.top, top)
        if "tags" in body:
            standing.tags = tags_of(body)
        return self._written(standing, before, request)

    def delete(self, request: ArmRequest) -> Reply:
        if (own := self._of(request.path.name)) is not self:
            return own.delete(request)
        self._offers("DELETE")
        standing = self._find(request)
        if standing is None:
            return Reply(204)
        self._preconditions(request, standing)
        self.tenant.remove_resource(standing)
        return Reply(200)

    # --- one resource --------------------------------------------------------------------------

    def _written(self, one: Plain, before: dict[str, Any], request: ArmRequest) -> Reply:
        try:
            self.shape.after(one, request)
        except ArmError:
            one.properties = before
            raise
        if self.shape.etags:
            one.etag = _next_etag(one.etag)
        return Reply(200, one.render())

    def _make(self, request: ArmRequest, body: Mapping[str, Any], given: Any, top: Any) -> Plain:
        location = body.get("location", "")
        if self.shape.located and (not isinstance(location, str) or not location.strip()):
            raise ArmError(
                400, "LocationRequired", "The location property is required for this definition."
            )
        return Plain(
            id=request.path.text,
            type=self.type,
            name=request.path.name,
            location=location.replace(" ", "").lower() if self.shape.located else "",
            tags=tags_of(body),
            properties={**copy.deepcopy(dict(self.shape.defaults)), **given},
            top=top,
            etag=_next_etag("") if self.shape.etags else "",
        )

    def _find(self, request: ArmRequest) -> Plain | None:
        found = self.tenant.resource(request.path.key)
        standing = {one.lower(): one for one in self.shape.always}
        if found is None and (name := standing.get(request.path.name.lower())):
            self._require_parent(request)
            found = self._standing(request.path.text, name)
        return found if isinstance(found, Plain) and found.type == self.type else None

    def _standing(self, text: str, name: str) -> Plain:
        """What stands there without being made."""
        found = self.tenant.resource(text)
        if isinstance(found, Plain):
            return found
        made = Plain(
            id=text,
            type=self.type,
            name=name,
            location="",
            properties=copy.deepcopy(dict(self.shape.defaults)),
            etag=_next_etag("") if self.shape.etags else "",
        )
        self.tenant.add_resource(made)
        return made

    def _require(self, request: ArmRequest) -> Plain:
        found = self._find(request)
        if found is None:
            raise resource_not_found(request.path)
        return found

    def _require_parent(self, request: ArmRequest) -> None:
        """Of a child, what holds it; singletons on the way stand by themselves."""
        path = request.path
        if self.extension and path.scope.count("/") > _GROUP_DEPTH:
            held_by = self.tenant.resource(path.scope)
            if held_by is None:
                raise resource_not_found(parse_path(path.scope))
            self.shape.below(held_by, request)
        if len(path.types) < 2:
            return
        above = path.text.rsplit("/", 1 if path.is_collection else 2)[0]
        holder = above if len(path.types) == 2 else above.rsplit("/", 2)[0]
        held_by = self.tenant.resource(holder) or self.tenant.resource(above)
        if held_by is None:
            raise resource_not_found(path)
        self.shape.below(held_by, request)

    # --- what may be written --------------------------------------------------------------------

    def _offers(self, method: str) -> None:
        if method not in self.shape.methods.split():
            raise method_not_allowed(method)

    def _preconditions(self, request: ArmRequest, standing: Plain | None) -> None:
        """If-Match means nothing to a type without ETags; If-None-Match: * does everywhere."""
        if self.shape.etags:
            check_preconditions(request, standing.etag if standing else None, request.path.text)

    def _checked(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The properties of a body that may be written, or 400 with the reason."""
        given = {}
        for name, value in properties_of(body).items():
            if name in self.shape.read_only:
                continue
            check = self.shape.properties.get(name)
            if check is None:
                raise _bad(f"Could not find member '{name}' on object of {self.type}.")
            if value is not None and not check(value):
                raise _bad(f"The value of '{name}' is not valid for {self.type}.")
            given[name] = copy.deepcopy(value)
        return given

    def _top(self, body: Mapping[str, Any]) -> dict[str, Any]:
        known = {"id", "name", "type", "location", "tags", "properties", "etag"}
        top = {}
        for name, value in body.items():
            if name in known:
                continue
            check = self.shape.top.get(name)
            if check is None:
                raise _bad(f"Could not find member '{name}' on object of {self.type}.")
            if value is not None and not check(value):
                raise _bad(f"The value of '{name}' is not valid for {self.type}.")
            top[name] = copy.deepcopy(value)
        return top


def merged(standing: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a PATCH leaves: objects merge at any depth, null takes a member away (RFC 7396)."""
    result = copy.deepcopy(dict(standing))
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def _bad(message: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"The request content was invalid: {message}")


def _next_etag(etag: str) -> str:
    return f'"{int(etag.strip(chr(34)) or "0", 16) + 1:032x}"'
