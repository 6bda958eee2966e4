"""ARM's front door: who asks, for what, whether they may; then the resource kind's answer."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import orjson
from aiohttp import web

from deployments.local.azure import authorization, graph, subscriptions
from deployments.local.azure.activity_log import ActivityLog
from deployments.local.azure.authorization import RoleAssignments, RoleDefinitions
from deployments.local.azure.deployments import Deployments
from deployments.local.azure.entra import TokenService
from deployments.local.azure.graph import GraphOptions, ResourceGraph
from deployments.local.azure.identity import FederatedCredentials, UserAssignedIdentities
from deployments.local.azure.network import DefaultSecurityRules, SecurityGroups, SecurityRules
from deployments.local.azure.operations import Operation, OperationFailure
from deployments.local.azure.plain import PlainKind
from deployments.local.azure.protocol import (
    ArmError,
    ArmPath,
    ArmRequest,
    Caller,
    Reply,
    ResourceKind,
    method_not_allowed,
    parse_path,
    resource_not_found,
)
from deployments.local.azure.shapes import SHAPES
from deployments.local.azure.storage import StorageAccounts
from deployments.local.azure.tenant import Tenant

# The id that all doings of a request are logged under: the caller's own, when it sends one.
CORRELATION = web.RequestKey("correlation", str)
METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "POST")
VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
OPERATION_TYPES = {"operations", "operationresults", "asyncoperations"}
# Collections that hang off a single resource come whole; these come in pages.
PAGED = {
    "microsoft.network/networksecuritygroups",
    "microsoft.storage/storageaccounts",
    "microsoft.managedidentity/userassignedidentities",
    "microsoft.authorization/roleassignments",
    "microsoft.resources/deployments",
}
EXTENSIONS = {
    "microsoft.authorization/roleassignments",
    "microsoft.authorization/roledefinitions",
}


@dataclass(frozen=True, slots=True)
class Route:
    """What a path means: the operation it needs, where, and who answers.

    ``collection`` is set for lists: their items are filtered to what the caller may read when the
    operation is not allowed on the whole scope. ``operation`` "" needs no permission of its own.
    """

    operation: str
    scope: str
    versions: tuple[str, ...]
    type: str
    answer: Callable[[ArmRequest], Reply] | None = None
    collection: Callable[[ArmRequest], list[dict[str, Any]]] | None = None
    paged: bool = True
    writes: bool = False


class ResourceManager:
    """The resource manager of one tenant, at https://localhost:PORT.

    ``publish`` takes the event of every write that it answers.
    """

    def __init__(
        self,
        tenant: Tenant,
        tokens: TokenService,
        address: str,
        options: GraphOptions | None = None,
        publish: Callable[[dict[str, Any]], None] = lambda _event: None,
    ) -> None:
        self.tenant = tenant
        self._log = ActivityLog(tenant, address, publish)
        self.graph = ResourceGraph(tenant, options or GraphOptions())
        for subscription in tenant.subscriptions:
            self.graph.note(subscription, float("-inf"))  # what is planted, it knows
        self.tokens = tokens
        self.address = address
        kinds: Iterable[ResourceKind] = (
            SecurityGroups(tenant, address),
            SecurityRules(tenant, address),
            DefaultSecurityRules(tenant, address),
            StorageAccounts(tenant, address),
            RoleAssignments(tenant),
            RoleDefinitions(tenant),
            UserAssignedIdentities(tenant),
            FederatedCredentials(tenant),
            *(PlainKind(tenant, one) for one in SHAPES),
        )
        self.kinds: dict[str, ResourceKind] = {kind.type.lower(): kind for kind in kinds}
        self.groups = subscriptions.ResourceGroups(tenant, address)
        self.deployments = Deployments(tenant, address, self._on_behalf_of)
        self.kinds[self.deployments.type.lower()] = self.deployments

    def application(self, website: Iterable[web.RouteDef] = ()) -> web.Application:
        """The server's application; ``website`` is served beside ARM, without tokens."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_routes(website)
        application.router.add_get("/metadata/endpoints", self._metadata)
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    async def _metadata(self, request: web.Request) -> web.Response:
        """What tools for private clouds ask for first; needs no token."""
        authority = self.tokens.authority
        document = {
            "name": "EmulatedCloud",
            "resourceManager": self.address,
            "authentication": {
                "loginEndpoint": authority,
                "audiences": [self.tenant.audience],
                "tenant": self.tenant.id,
                "identityProvider": "AAD",
            },
            "graph": "https://graph.microsoft.com/",
            "suffixes": {"storage": "core.windows.net"},
        }
        return _respond(request, Reply(200, [document]))

    async def _handle(self, request: web.Request) -> web.Response:
        asked = request.headers.get("x-ms-correlation-request-id", "")
        given = authorization.GUID.fullmatch(asked)
        request[CORRELATION] = asked.lower() if given else str(uuid.uuid4())
        try:
            reply = await self._answer(request)
        except ArmError as error:
            reply = Reply(error.status, error.body(), error.headers)
        return _respond(request, reply)

    async def _answer(self, request: web.Request) -> Reply:
        self.tenant.operations.settle_overdue()
        try:
            return await self._answer_settled(request)
        finally:
            self.graph.note(parse_path(request.path).subscription)

    async def _answer_settled(self, request: web.Request) -> Reply:
        caller = replace(
            self.tokens.authenticate(request.headers.get("Authorization")),
            address=request.remote or "",
            correlation=request[CORRELATION],
        )
        if request.method not in METHODS:
            raise method_not_allowed(request.method)
        path = parse_path(request.path)
        query = {key.lower(): value for key, value in request.query.items()}
        if not query.get("api-version"):
            raise ArmError(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        if path.subscription:
            self.tenant.faults.check_rate(path.subscription, caller.object_id)
        route = self._route(path, request.method)
        _check_version(route, query["api-version"])
        if path.subscription:
            self.tenant.subscription(path.subscription)
        body = await _body(request)
        asked = ArmRequest(request.method, path, query, request.headers, body, caller)
        if route.collection is not None:
            return self._list(route, asked)
        return self._single(route, asked)

    def _on_behalf_of(
        self, caller: Caller, method: str, resource: str, version: str, body: Any = None
    ) -> Reply:
        """What a template makes or asks for: as if its deployer had asked for it."""
        path = parse_path(resource)
        route = self._route(path, method)
        _check_version(route, version)
        self.tenant.subscription(path.subscription)
        return self._single(
            route, ArmRequest(method, path, {"api-version": version}, {}, body, caller)
        )

    def _single(self, route: Route, request: ArmRequest) -> Reply:
        """The answer. Of a write the activity log is told: of one that goes on, when it ends."""
        if request.method in {"GET", "HEAD"} or not route.operation:
            return self._carried_out(route, request)
        before = self.tenant.operations.latest

        def note(failure: OperationFailure | None) -> None:
            self._log.note(request, route.operation, route.scope, failed=failure is not None)

        try:
            reply = self._carried_out(route, request)
        except ArmError as error:
            note(OperationFailure(error.code, error.message))
            raise
        begun = self.tenant.operations.latest
        if begun is None or begun is before or begun.status != "InProgress":
            note(None)
        else:
            begun.ended = note
        return reply

    def _carried_out(self, route: Route, request: ArmRequest) -> Reply:
        if route.operation and not self._allowed(request.caller, route.operation, route.scope):
            raise _refused(request.caller, route.operation, route.scope)
        if route.writes:
            self._check_enabled(request.path)
        if request.path.group and request.path.namespace and request.method != "DELETE":
            self.tenant.group(request.path.subscription, request.path.group)
        assert route.answer is not None
        return route.answer(request)

    def _list(self, route: Route, request: ArmRequest) -> Reply:
        assert route.collection is not None
        if request.path.group:
            whole = self._allowed(request.caller, route.operation, route.scope)
            if whole or self._touches(request.caller, route.scope):
                self.tenant.group(request.path.subscription, request.path.group)
        if not route.operation or self._allowed(request.caller, route.operation, route.scope):
            return self._page(route, request, route.collection(request))
        items = [
            item
            for item in (route.collection(request) if route.paged else ())
            if self._allowed(request.caller, f"{item['type']}/read", item["id"])
        ]
        if not items:
            raise _refused(request.caller, route.operation, route.scope)
        return self._page(route, request, items)

    def _page(self, route: Route, request: ArmRequest, items: list[dict[str, Any]]) -> Reply:
        if not route.paged:
            return Reply(200, {"value": items})
        items = sorted(items, key=_sort_key)
        size = self._page_size(request)
        after = _read_skip_token(request.query.get("$skiptoken"))
        rest = [item for item in items if _sort_key(item) > after] if after else items
        body: dict[str, Any] = {"value": rest[:size]}
        if len(rest) > size:
            query = {k: v for k, v in request.query.items() if k != "$skiptoken"}
            query["$skiptoken"] = _skip_token(_sort_key(rest[size - 1]))
            body["nextLink"] = f"{self.address}{request.path.text}?{urlencode(query)}"
        if route.type == "subscriptions":
            body["count"] = {"type": "Total", "value": len(items)}
        return Reply(200, body)

    def _page_size(self, request: ArmRequest) -> int:
        top = request.query.get("$top")
        if top is None:
            return self.tenant.page_size
        if not top.isdecimal() or int(top) < 1:
            raise ArmError(400, "InvalidTopParameter", "$top must be a positive number.")
        return min(int(top), self.tenant.page_size)

    # What a path means

    def _route(self, path: ArmPath, method: str) -> Route:
        if not path.namespace:
            return self._resources_route(path, method)
        if method == "POST" and len(path.types) == 1 and path.types[0].lower() == "register":
            return self._register_route(path)
        if path.type_key.startswith(f"{self.deployments.type.lower()}/"):
            return self._deployment_route(path, method)
        if path.types[0].lower() == "locations" and path.types[-1].lower() in OPERATION_TYPES:
            return self._operation_route(path, method)
        if path.type_key == graph.TYPE:
            return self._graph_route(path, method)
        if path.type_key == authorization.PERMISSIONS_TYPE:
            return self._permissions_route(path, method)
        kind = self.kinds.get(path.type_key)
        if kind is None:
            raise _unknown_type(path, self.kinds)
        return self._kind_route(kind, path, method)

    def _graph_route(self, path: ArmPath, method: str) -> Route:
        if method != "POST":
            raise method_not_allowed(method)
        if path.scope:
            raise resource_not_found(path)
        # Whom it answers for what is its own affair: nobody has a role on the whole tenant.
        return Route("", "/", graph.API_VERSIONS, graph.TYPE, answer=self.graph.answer)

    def _permissions_route(self, path: ArmPath, method: str) -> Route:
        if method != "GET":
            raise method_not_allowed(method)
        return Route(
            authorization.PERMISSIONS_READ,
            path.scope or "/",
            authorization.API_VERSIONS,
            authorization.PERMISSIONS_TYPE,
            collection=self._permissions,
            paged=False,
        )

    def _permissions(self, request: ArmRequest) -> list[dict[str, Any]]:
        return authorization.permissions(self.tenant, request.caller.object_id, request.path.scope)

    def _deployment_route(self, path: ArmPath, method: str) -> Route:
        """What hangs off a deployment: its validation, and how its operation stands."""
        kind = self.deployments
        match method, path.types[1].lower():
            case "POST", "validate":
                operation = f"{kind.type}/validate/action"
                scope = path.text.rpartition("/")[0]
                return Route(operation, scope, kind.api_versions, kind.type, answer=kind.validate)
            case "GET", "operationstatuses" if len(path.names) == 2:
                return Route(
                    "", path.text, kind.api_versions, kind.type, answer=self._deployment_status
                )
        raise method_not_allowed(method)

    def _deployment_status(self, request: ArmRequest) -> Reply:
        reply = self._operation_status(request)
        if reply.body["status"] == "InProgress":
            return Reply(200, {"status": "Running"}, reply.headers)
        return reply

    def _kind_route(self, kind: ResourceKind, path: ArmPath, method: str) -> Route:
        if method == "POST":
            raise method_not_allowed(method)
        extension = kind.type.lower() in EXTENSIONS or getattr(kind, "extension", False)
        depth = len(path.scope.strip("/").split("/")) if path.scope else 0
        wide = path.is_collection or kind is self.deployments
        wide = wide or getattr(kind, "of_subscription", False)
        if not extension and depth != 4 and not (depth == 2 and wide):
            raise resource_not_found(path)
        if path.is_collection:
            if method != "GET":
                raise method_not_allowed(method)
            nested = len(path.types) > 1
            return Route(
                f"{kind.type}/read",
                path.text.rpartition("/")[0] if nested else path.scope or "/",
                kind.api_versions,
                kind.type,
                collection=kind.members,
                paged=path.type_key in PAGED or (isinstance(kind, PlainKind) and not nested),
            )
        return Route(
            f"{kind.type}/{VERBS[method]}",
            path.text,
            kind.api_versions,
            kind.type,
            answer=_by_method(kind, method),
            writes=method not in {"GET", "HEAD"},
        )

    def _resources_route(self, path: ArmPath, method: str) -> Route:
        """Paths of Microsoft.Resources itself, which name no provider."""
        parts = [part.lower() for part in path.segments]
        match parts:
            case ["tenants"]:
                return self._plain("", path, method, collection=self._tenants)
            case ["subscriptions"]:
                return self._plain("", path, method, collection=self._subscriptions)
            case ["subscriptions", _]:
                return self._plain("subscriptions", path, method, answer=self._subscription)
            case ["subscriptions", _, "locations"]:
                return self._plain(
                    "subscriptions/locations", path, method, collection=self._locations
                )
            case ["subscriptions", _, "resources"]:
                return self._plain(
                    "subscriptions/resources", path, method, collection=self._generic
                )
            case ["subscriptions", _, "resourcegroups"]:
                return self._plain(
                    "subscriptions/resourceGroups", path, method, collection=self.groups.members
                )
            case ["subscriptions", _, "resourcegroups", _]:
                return self._plain(
                    "subscriptions/resourceGroups", path, method, answer=self.groups.answer
                )
            case ["subscriptions", _, "resourcegroups", _, "resources"]:
                return self._plain(
                    "subscriptions/resourceGroups/resources",
                    path,
                    method,
                    collection=self._generic,
                )
            case ["subscriptions", _, "providers"]:
                return self._plain(
                    "subscriptions/providers", path, method, collection=self._providers
                )
            case ["subscriptions", _, "providers", _]:
                return self._plain("subscriptions/providers", path, method, answer=self._provider)
            case ["subscriptions", _, "operationresults", _]:
                return Route("", path.text, (), "operationresults", answer=self._location_result)
        raise ArmError(
            404, "NotFound", f"The request path '{path.text}' names nothing this cloud offers."
        )

    def _plain(
        self,
        kind: str,
        path: ArmPath,
        method: str,
        *,
        answer: Callable[[ArmRequest], Reply] | None = None,
        collection: Callable[[ArmRequest], list[dict[str, Any]]] | None = None,
    ) -> Route:
        writable = kind == "subscriptions/resourceGroups" and answer is not None
        if method == "POST" or (method not in {"GET", "HEAD"} and not writable):
            raise method_not_allowed(method)
        # A list is asked of what holds the items: the subscription, or the resource group.
        scope = path.text.rpartition("/")[0] if collection else path.text
        if kind == "subscriptions/providers":
            scope = "/".join(path.text.split("/")[:3])
        return Route(
            f"Microsoft.Resources/{kind}/{VERBS[method]}" if kind else "",
            scope or "/",
            subscriptions.API_VERSIONS,
            kind or path.segments[0].lower(),
            answer=answer,
            collection=collection,
            paged=kind not in {"subscriptions/locations", "subscriptions/providers"},
            writes=method not in {"GET", "HEAD"},
        )

    def _register_route(self, path: ArmPath) -> Route:
        def answer(request: ArmRequest) -> Reply:
            return Reply(200, self._render_provider(path.namespace, path.subscription))

        return Route(
            f"{path.namespace}/register/action",
            path.scope,
            subscriptions.API_VERSIONS,
            "register",
            answer=answer,
            writes=True,
        )

    def _operation_route(self, path: ArmPath, method: str) -> Route:
        if method != "GET":
            raise method_not_allowed(method)
        by_status = path.types[-1].lower() == "operations"
        answer = self._operation_status if by_status else self._location_result
        return Route("", path.text, (), "operations", answer=answer)

    # Answers of Microsoft.Resources

    def _tenants(self, request: ArmRequest) -> list[dict[str, Any]]:
        return [
            {
                "id": f"/tenants/{self.tenant.id}",
                "tenantId": self.tenant.id,
                "tenantCategory": "Home",
                "displayName": "Emulated",
            }
        ]

    def _subscriptions(self, request: ArmRequest) -> list[dict[str, Any]]:
        return subscriptions.visible_subscriptions(self.tenant, request.caller.object_id)

    def _subscription(self, request: ArmRequest) -> Reply:
        found = self.tenant.subscription(request.path.subscription)
        return Reply(200, subscriptions.render_subscription(found, self.tenant.id))

    def _locations(self, request: ArmRequest) -> list[dict[str, Any]]:
        prefix = f"/subscriptions/{request.path.subscription}/locations"
        return [
            {"id": f"{prefix}/{name}", "name": name, "displayName": name, "type": "Region"}
            for name in subscriptions.LOCATIONS
        ]

    def _generic(self, request: ArmRequest) -> list[dict[str, Any]]:
        wanted = request.query.get("$filter", "")
        found = self.tenant.resources(request.path.subscription, request.path.group)
        return [r.summary() for r in found if subscriptions.matches_filter(r, wanted)]

    def _providers(self, request: ArmRequest) -> list[dict[str, Any]]:
        namespaces = sorted({kind.type.partition("/")[0] for kind in self.kinds.values()})
        return [self._render_provider(name, request.path.subscription) for name in namespaces]

    def _provider(self, request: ArmRequest) -> Reply:
        parts = request.path.segments
        return Reply(200, self._render_provider(parts[3], request.path.subscription))

    def _render_provider(self, namespace: str, subscription: str) -> dict[str, Any]:
        provider = subscriptions.render_provider(namespace, subscription, self.kinds)
        if provider is None:
            raise _unknown_namespace(namespace)
        return provider

    # Asynchronous operations

    def _operation_status(self, request: ArmRequest) -> Reply:
        operation = self._operation(request)
        status = self.tenant.operations.poll(operation)
        if status == "InProgress":
            return Reply(200, {"status": status}, self.tenant.operations.headers())
        if operation.failure:
            error = {
                "code": operation.failure.code,
                "message": operation.failure.message,
                "details": operation.failure.details,
            }
            return Reply(200, {"status": status, "error": error})
        return Reply(200, {"status": status})

    def _location_result(self, request: ArmRequest) -> Reply:
        operation = self._operation(request)
        if self.tenant.operations.poll(operation) == "InProgress":
            query = urlencode(dict(request.query))
            again = {"Location": f"{self.address}{request.path.text}?{query}"}
            return Reply(202, None, again | self.tenant.operations.headers())
        if operation.failure:
            raise ArmError(409, operation.failure.code, operation.failure.message)
        return operation.result()

    def _operation(self, request: ArmRequest) -> Operation:
        """The operation asked after. Its starter may always ask: its address is the permission."""
        path, caller = request.path, request.caller
        operation = self.tenant.operations.find(path.segments[-1])
        scope = f"/subscriptions/{path.subscription}"
        if operation is None or not operation.target.startswith(f"{scope}/"):
            raise ArmError(404, "OperationNotFound", "The operation could not be found.")
        action = f"{path.namespace or 'Microsoft.Resources'}/locations/operations/read"
        if operation.starter != caller.object_id and not self._allowed(caller, action, scope):
            raise _refused(caller, action, path.text)
        return operation

    # Access

    def _allowed(self, caller: Caller, operation: str, scope: str) -> bool:
        now = self.tenant.clock()
        return self.tenant.access.allowed(caller.object_id, operation, scope, now)

    def _touches(self, caller: Caller, scope: str) -> bool:
        return self.tenant.access.touches(caller.object_id, scope, self.tenant.clock())

    def _check_enabled(self, path: ArmPath) -> None:
        if not path.subscription:
            return
        if self.tenant.subscription(path.subscription).state == "Enabled":
            return
        raise ArmError(
            409,
            "ReadOnlyDisabledSubscription",
            f"The subscription '{path.subscription}' is disabled and therefore marked as read "
            "only. You cannot perform any write actions on this subscription until it is "
            "re-enabled.",
        )


def _by_method(kind: ResourceKind, method: str) -> Callable[[ArmRequest], Reply]:
    return {
        "GET": kind.get,
        "HEAD": lambda request: Reply(204) if kind.get(request) else Reply(404),
        "PUT": kind.put,
        "PATCH": kind.patch,
        "DELETE": kind.delete,
    }[method]


def _refused(caller: Caller, operation: str, scope: str) -> ArmError:
    return ArmError(
        403,
        "AuthorizationFailed",
        f"The client '{caller.client_id}' with object id '{caller.object_id}' does not have "
        f"authorization to perform action '{operation}' over scope '{scope}' or the scope is "
        "invalid. If access was recently granted, please refresh your credentials.",
    )


def _check_version(route: Route, version: str) -> None:
    if not route.versions or version in route.versions:
        return
    supported = ", ".join(route.versions)
    if "/" in route.type and route.type.lower().startswith("microsoft."):
        raise ArmError(
            400,
            "NoRegisteredProviderFound",
            f"No registered resource provider found for API version '{version}' for type "
            f"'{route.type.partition('/')[2]}'. The supported api-versions are '{supported}'.",
        )
    raise ArmError(
        400,
        "InvalidApiVersionParameter",
        f"The api-version '{version}' is invalid. The supported versions are '{supported}'.",
    )


def _unknown_type(path: ArmPath, kinds: Mapping[str, ResourceKind]) -> ArmError:
    if not any(key.startswith(f"{path.namespace.lower()}/") for key in kinds):
        return _unknown_namespace(path.namespace)
    return ArmError(
        404,
        "InvalidResourceType",
        f"The resource type '{'/'.join(path.types)}' could not be found in the namespace "
        f"'{path.namespace}'.",
    )


def _unknown_namespace(namespace: str) -> ArmError:
    return ArmError(
        404, "InvalidResourceNamespace", f"The resource namespace '{namespace}' is invalid."
    )


async def _body(request: web.Request) -> Any:
    data = await request.read()
    if not data:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ArmError(
            400,
            "InvalidRequestContent",
            "The request content was invalid and could not be deserialized.",
        ) from error


def _respond(request: web.Request, reply: Reply) -> web.Response:
    headers = {
        "Cache-Control": "no-cache",
        "Pragma": "no-cache",
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-correlation-request-id": request.get(CORRELATION) or str(uuid.uuid4()),
        "x-content-type-options": "nosniff",
        **reply.headers,
    }
    if asked := request.headers.get("x-ms-client-request-id"):
        headers["x-ms-client-request-id"] = asked
    if reply.body is None:
        return web.Response(status=reply.status, headers=headers)
    return web.Response(
        status=reply.status,
        body=orjson.dumps(reply.body),
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


def _sort_key(item: Mapping[str, Any]) -> str:
    return str(item["id"]).lower()


def _skip_token(after: str) -> str:
    return base64.urlsafe_b64encode(after.encode()).decode()


def _read_skip_token(token: str | None) -> str:
    if token is None:
        return ""
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ArmError(400, "InvalidSkipToken", "The skip token is invalid.") from error
