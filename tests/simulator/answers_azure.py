"""The Azure side: Entra's token endpoint, ARM's lists and Resource Graph's rows."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import fleet_azure
import orjson
import unset_azure
from answers_aws import Answer, Request
from fleet_azure import AzureFleet
from messages import JSON, REQUEST_ID, arm_error, aws_refusal, message

LIFETIME = 3599  # seconds
MOST_ROWS = 1000  # of a page of Resource Graph
OTHER = "other"
_SUBSCRIPTION = fleet_azure.SUBSCRIPTION.encode()
_TYPE = re.compile(r"type\s*=~\s*['\"]([^'\"]+)['\"]", re.IGNORECASE)
_TYPES = re.compile(r"type\s+in~\s*\(([^)]*)\)", re.IGNORECASE)
_QUOTED = re.compile(r"['\"]([^'\"]+)['\"]")
# How many rows each subscription has; one without any is there, with nothing in the column.
_COUNT = re.compile(
    r"resourcecontainers\s*\|\s*where type =~ 'microsoft\.resources/subscriptions'\s*"
    r"\|\s*join kind=leftouter \((resources\s*\|\s*where [^|]+)"
    r"\|\s*summarize found = count\(\) by subscriptionId\)\s*on subscriptionId\s*"
    r"\|\s*project subscriptionId, found",
    re.IGNORECASE,
)
_PROJECT = re.compile(r"\|\s*project\s+([^|]+)", re.IGNORECASE)
_LISTS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    fleet_azure.GROUP_TYPE.lower(): fleet_azure.security_groups,
    fleet_azure.STORAGE_TYPE.lower(): fleet_azure.storage_accounts,
}
_ID = len(f"/subscriptions/{fleet_azure.SUBSCRIPTION}")  # what every resource's id begins with
_VERSION = re.compile(r"\d{4}-\d\d-\d\d(-[a-z]+)?")
# The shortest token that a client which looks inside is content with: header.payload.signature.
_SIGNATURE = "c2ltdWxhdGVk"


class AzureAnswers:
    """Answers for a fleet at ``address``, which is both authority and resource manager."""

    def __init__(self, fleet: AzureFleet, address: str) -> None:
        self._fleet = fleet
        self._address = address
        self._pages: dict[tuple[str, int, int], bytes] = {}
        self._rows: dict[tuple[str, int, tuple[str, ...]], list[bytes]] = {}
        self._in_order: dict[tuple[tuple[str, ...], int, tuple[str, ...]], list[bytes]] = {}
        self._ids: dict[tuple[str, int], dict[str, str]] = {}

    def subscription_of(self, request: Request) -> bytes:
        """The subscription that a path is about; b"" where there is none."""
        path = request.target
        return path[15:51].lower() if path[:15].lower() == b"/subscriptions/" else b""

    def answer(self, request: Request) -> Answer:
        path, _, query = request.target.decode("latin-1").partition("?")
        lowered = path.lower().rstrip("/")
        if lowered.endswith("/.well-known/openid-configuration"):
            return "openid-configuration", self._openid()
        if lowered.endswith("/token"):
            return "token", self._token(request)
        bearer = request.header(b"authorization").startswith(b"Bearer ")
        if not bearer:
            if not lowered.startswith(("/subscriptions", "/providers", "/tenants")):
                return OTHER, aws_refusal("unsigned", "query")
            return OTHER, arm_error(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            )
        if not _was_issued(request):
            return OTHER, arm_error(
                401, "InvalidAuthenticationToken", "The access token is invalid."
            )
        return self._to_arm(request, lowered, dict(parse_qsl(query)))

    # Entra

    def _openid(self) -> bytes:
        base = f"{self._address}/{fleet_azure.TENANT}"
        return _json(
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "private_key_jwt",
                    "client_secret_basic",
                ],
                "jwks_uri": f"{base}/discovery/v2.0/keys",
                "response_modes_supported": ["query", "fragment", "form_post"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code", "token"],
                "scopes_supported": ["openid", "profile", "offline_access"],
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "tenant_region_scope": "EU",
            }
        )

    def _token(self, request: Request) -> bytes:
        form = dict(parse_qsl(request.body.decode("latin-1")))
        if form.get("grant_type") != "client_credentials":
            return _entra_error(
                400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."
            )
        if form.get("client_id", "").lower() != fleet_azure.CLIENT_ID:
            return _entra_error(
                400,
                "unauthorized_client",
                700016,
                "The application was not found in the directory.",
            )
        if form.get("client_secret") != fleet_azure.CLIENT_SECRET:
            return _entra_error(401, "invalid_client", 7000215, "Invalid client secret provided.")
        audience = (form.get("resource") or form.get("scope", "")).removesuffix("/.default")
        return _json(
            {
                "token_type": "Bearer",
                "expires_in": LIFETIME,
                "ext_expires_in": LIFETIME,
                "access_token": _access_token(audience),
            },
            Cache_Control="no-store, no-cache",
        )

    # ARM

    def _to_arm(self, request: Request, path: str, query: dict[str, str]) -> Answer:
        version = query.get("api-version")
        if version is None:
            words = "The api-version query parameter (?api-version=) is required for all requests."
            return OTHER, arm_error(400, "MissingApiVersionParameter", words)
        if not _VERSION.fullmatch(version):
            words = f"The api-version '{version}' is invalid."
            return OTHER, arm_error(400, "InvalidApiVersionParameter", words)
        graph = path == "/providers/microsoft.resourcegraph/resources"
        if request.method != (b"POST" if graph else b"GET"):
            words = "The requested operation is not supported by the simulator."
            return OTHER, arm_error(405, "MethodNotAllowed", words)
        if graph:
            return "ResourceGraph", self._graph(request)
        if path == "/subscriptions":
            return "subscriptions", self._subscriptions(query)
        parts = path.split("/")
        if len(parts) < 3 or parts[1] != "subscriptions":
            words = "The request did not have a subscription or a valid tenant level resource."
            return OTHER, arm_error(404, "MissingSubscription", words)
        index = self._fleet.index_of(parts[2])
        if index < 0:
            words = f"The subscription '{parts[2]}' could not be found."
            return OTHER, arm_error(404, "SubscriptionNotFound", words)
        if len(parts) == 3:
            return "subscriptions", _json(fleet_azure.subscription(index))
        whole, _, within = path[_ID:].partition("/providers/")
        if whole and within.count("/") < 2:
            words = "Only lists of a whole subscription are simulated."
            return OTHER, arm_error(400, "BadRequest", words)
        type, *below = _divided(within)
        if type in _LISTS and not whole and not below:
            return _short(type), self._list(type, parts[2], query)
        if type in _LISTS and len(below) == 1:
            return _short(type), self._one(type, parts[2], below[0], path)
        if type == "microsoft.authorization/permissions" and not whole and not below:
            allowed = {
                "actions": ["*/read"],
                "notActions": [],
                "dataActions": [],
                "notDataActions": [],
            }
            return "permissions", _json({"value": [allowed]})
        if type == fleet_azure.STORAGE_TYPE.lower() and below:
            return OTHER, self._below_storage(parts[2], path, below)
        return OTHER, self._of_nothing(parts[2], type, below, query, in_group=bool(whole))

    def _of_nothing(
        self,
        subscription: str,
        type: str,
        below: list[str],
        query: dict[str, str],
        *,
        in_group: bool,
    ) -> bytes:
        """Of what the subscription has none of, or only the defaults."""
        items = unset_azure.LISTS.get(type)
        namespace, _, rest = type.partition("/")
        if items is None:
            if namespace not in unset_azure.NAMESPACES:
                words = f"The resource namespace '{namespace}' is invalid."
                return arm_error(404, "InvalidResourceNamespace", words)
            words = f"The resource type '{rest}' could not be found in '{namespace}'."
            return arm_error(404, "InvalidResourceType", words)
        if len(below) > 1:
            words = f"The parent resource '{type}/{below[0]}' could not be found."
            return arm_error(404, "ParentResourceNotFound", words)
        if below:
            for item in items:
                if item["name"].lower() == below[0] and not in_group:
                    return _json(item).replace(_SUBSCRIPTION, subscription.encode())
            words = f"The Resource '{type}/{below[0]}' was not found."
            return arm_error(404, "ResourceNotFound", words)
        if query.get("$filter", "") not in unset_azure.FILTERS.get(type, {""}):
            words = f"The filter is not simulated for {type}."
            return arm_error(400, "UnsupportedQuery", words)
        return _unset_list(type).replace(_SUBSCRIPTION, subscription.encode())

    def _below_storage(self, subscription: str, path: str, below: list[str]) -> bytes:
        name, *child = below
        account = path.removesuffix("/" + "/".join(child))
        known = self._known_ids(fleet_azure.STORAGE_TYPE.lower(), subscription)
        id = known.get(account[_ID:])
        if id is None:
            words = f"The parent resource '{fleet_azure.STORAGE_TYPE}/{name}' could not be found."
            return arm_error(404, "ParentResourceNotFound", words)
        found = unset_azure.below_storage(f"/subscriptions/{subscription}{id}", "/".join(child))
        if found is None:
            words = f"The resource type '{child[0]}' could not be found in an account."
            return arm_error(404, "InvalidResourceType", words)
        return _json(found)

    def _known_ids(self, type: str, subscription: str) -> dict[str, str]:
        """What follows the subscription in the ids of its resources, by itself in lower case."""
        key = type, fleet_azure.kind_of(subscription)
        known = self._ids.get(key)
        if known is None:
            ids = (item["id"][_ID:] for item in self._items(*key))
            known = self._ids[key] = {id.lower(): id for id in ids}
        return known

    def _subscriptions(self, query: dict[str, str]) -> bytes:
        start = _token_of(query)
        end = min(start + self._fleet.page, self._fleet.subscriptions)
        body: dict[str, Any] = {
            "value": [fleet_azure.subscription(index) for index in range(start, end)],
            "count": {"type": "Total", "value": self._fleet.subscriptions},
        }
        if end < self._fleet.subscriptions:
            body["nextLink"] = self._link("/subscriptions", query["api-version"], end)
        return _json(body)

    def _list(self, type: str, subscription: str, query: dict[str, str]) -> bytes:
        start = _token_of(query)
        version = query["api-version"]
        key = f"{type} {version}", fleet_azure.kind_of(subscription), start
        template = self._pages.get(key)
        if template is None:
            items = self._items(type, key[1])
            body: dict[str, Any] = {"value": items[start : start + self._fleet.page]}
            if start + self._fleet.page < len(items):
                path = f"/subscriptions/{fleet_azure.SUBSCRIPTION}/providers/{type}"
                body["nextLink"] = self._link(path, version, start + self._fleet.page)
            template = _json(body)
            if len(self._pages) < 1000:  # whatever versions and offsets are asked for
                self._pages[key] = template
        return template.replace(_SUBSCRIPTION, subscription.encode())

    def _items(self, type: str, kind: int) -> list[dict[str, Any]]:
        return _LISTS[type](self._fleet, fleet_azure.SUBSCRIPTION, kind)

    def _one(self, type: str, subscription: str, name: str, path: str) -> bytes:
        for item in _LISTS[type](self._fleet, subscription):
            if item["name"] == name and item["id"].lower() == path:
                return _json(item)
        words = f"The Resource '{type}/{name}' was not found."
        return arm_error(404, "ResourceNotFound", words)

    def _link(self, path: str, version: str, start: int) -> str:
        return f"{self._address}{path}?api-version={version}&$skiptoken={start}"

    # Resource Graph

    def _graph(self, request: Request) -> bytes:
        try:
            asked = orjson.loads(request.body)
            query, options = asked["query"], asked.get("options") or {}
            wanted = asked.get("subscriptions")
            top = min(int(options.get("$top", MOST_ROWS)), MOST_ROWS)
            start = int(options.get("$skipToken") or options.get("$skip") or 0)
        except (KeyError, ValueError, TypeError, AttributeError):
            return arm_error(400, "BadRequest", "Please provide a query and options as documented.")
        counted = _COUNT.fullmatch(query.strip())
        types = _types(counted[1] if counted else query)
        if not types or any(type not in _LISTS for type in types):
            words = "Only type =~ and type in~ of the simulated types are answered."
            return arm_error(400, "BadRequest", words)
        if wanted is None:
            indices = range(self._fleet.subscriptions)
        else:
            # Ids of others are simply not seen, as in Azure.
            indices = sorted({self._fleet.index_of(id.lower()) for id in wanted} - {-1})
        if counted:
            return self._counts(types, indices, start, top)
        project = _PROJECT.search(query)
        columns = tuple(re.split(r"\s*,\s*", project[1].strip())) if project else ()
        return self._graph_page(types, indices, columns, start, top)

    def _counts(
        self, types: tuple[str, ...], indices: Sequence[int], start: int, top: int
    ) -> bytes:
        """A row for each subscription: how many resources of the types it has."""
        each = sum(len(self._rows_of(type, 0, ())) for type in types) or None
        rows = [
            orjson.dumps({"subscriptionId": fleet_azure.subscription_id(index), "found": each})
            for index in indices[start : start + top]
        ]
        return _graph_answer(rows, len(indices), start, top)

    def _graph_page(
        self,
        types: tuple[str, ...],
        indices: Sequence[int],
        columns: tuple[str, ...],
        start: int,
        top: int,
    ) -> bytes:
        """Rows ``start`` to ``start + top``, ordered by id; each subscription has as many."""
        each = sum(len(self._rows_of(type, 0, columns)) for type in types)
        total = each * len(indices)
        end = min(start + top, total)
        rows: list[bytes] = []
        place = start
        while place < end:
            at = place // each
            subscription = fleet_azure.subscription_id(indices[at])
            templates = self._ordered(types, fleet_azure.kind_of(subscription), columns)
            some = templates[place % each : place % each + end - place]
            rows.append(b",".join(some).replace(_SUBSCRIPTION, subscription.encode()))
            place += len(some)
        return _graph_answer(rows, total, start, top)

    def _ordered(self, types: tuple[str, ...], kind: int, columns: tuple[str, ...]) -> list[bytes]:
        key = types, kind, columns
        rows = self._in_order.get(key)
        if rows is None:
            # Ids differ first in the resource group, then in the type.
            pairs = [
                (item["id"].lower(), row)
                for type in types
                for item, row in zip(
                    self._items(type, kind), self._rows_of(type, kind, columns), strict=True
                )
            ]
            rows = [row for _, row in sorted(pairs)]
            if len(self._in_order) < 1000:  # whatever columns are asked for
                self._in_order[key] = rows
        return rows

    def _rows_of(self, type: str, kind: int, columns: tuple[str, ...]) -> list[bytes]:
        key = type, kind, columns
        rows = self._rows.get(key)
        if rows is None:
            rows = []
            for item in self._items(type, kind):
                row = fleet_azure.graph_row(item)
                rows.append(
                    orjson.dumps({name: row.get(name) for name in columns} if columns else row)
                )
            self._rows[key] = rows
        return rows


def _divided(path: str) -> list[str]:
    """The type of "microsoft.x/type/name/child", and what comes after it."""
    namespace, _, rest = path.partition("/")
    type, *below = rest.split("/")
    return [f"{namespace}/{type}" if type else namespace, *below]


def _types(query: str) -> tuple[str, ...]:
    """The types that a query asks for, in lower case, each once."""
    named = _TYPE.findall(query) + _QUOTED.findall(" ".join(_TYPES.findall(query)))
    return tuple(sorted({one.lower() for one in named}))


def _graph_answer(rows: list[bytes], total: int, start: int, top: int) -> bytes:
    """A page of Resource Graph: rows ``start`` to ``start + top`` of ``total``."""
    end = min(start + top, total)
    head = orjson.dumps(
        {"totalRecords": total, "count": max(end - start, 0)}
        | {"resultTruncated": "false", "facets": []}
        | ({"$skipToken": str(end)} if end < total else {})
    )
    return message(
        200,
        JSON,
        head[:-1] + b',"data":[' + b",".join(rows) + b"]}",
        x_ms_user_quota_remaining="14",
        x_ms_user_quota_resets_after="00:00:05",
        x_ms_resource_graph_request_duration="0:00:00:00.0100000",
        x_ms_request_id=REQUEST_ID,
    )


@cache
def _unset_list(type: str) -> bytes:
    return _json({"value": unset_azure.LISTS[type]})


def _json(body: Any, **headers: str) -> bytes:
    return message(200, JSON, orjson.dumps(body), x_ms_request_id=REQUEST_ID, **headers)


def _entra_error(status: int, error: str, number: int, words: str) -> bytes:
    body = {
        "error": error,
        "error_description": f"AADSTS{number}: {words}",
        "error_codes": [number],
        "correlation_id": REQUEST_ID,
    }
    return message(status, JSON, orjson.dumps(body))


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode()


def _access_token(audience: str) -> str:
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{fleet_azure.TENANT}/",
        "iat": now,
        "nbf": now,
        "exp": now + LIFETIME,
        "appid": fleet_azure.CLIENT_ID,
        "idtyp": "app",
        "oid": fleet_azure.OBJECT_ID,
        "tid": fleet_azure.TENANT,
        "ver": "1.0",
    }
    return f"{_encoded({'typ': 'JWT', 'alg': 'RS256'})}.{_encoded(claims)}.{_SIGNATURE}"


def _was_issued(request: Request) -> bool:
    """Only the shape is looked at: a real check would cost more than the answer."""
    return request.header(b"authorization").endswith(b"." + _SIGNATURE.encode())


def _token_of(query: dict[str, str]) -> int:
    text = query.get("$skiptoken", "0")
    return int(text) if text.isdecimal() else 0


def _short(type: str) -> str:
    return "networkSecurityGroups" if type.startswith("microsoft.network/") else "storageAccounts"
