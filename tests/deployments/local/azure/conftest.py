"""One emulated Azure per test module, raw HTTP as any of its people, and the real SDK's clients."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployments.local.azure.server import EmulatedAzure

SCOPE = "https://management.azure.com/.default"


@dataclass
class Clock:
    """The emulator's time: the real one, plus what a test adds."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Fleet:
    """An emulator with everything a test needs to talk to it."""

    NETWORK = "2024-05-01"
    STORAGE = "2023-05-01"
    RESOURCES = "2022-12-01"
    AUTHORIZATION = "2022-04-01"
    IDENTITY = "2023-01-31"

    azure: EmulatedAzure
    clock: Clock
    issuer_key: rsa.RSAPrivateKey
    http: httpx.Client = field(init=False)
    _tokens: dict[str, str] = field(default_factory=dict)
    _closing: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        context = ssl.create_default_context(cafile=str(self.azure.ca_file))
        self.http = httpx.Client(verify=context)
        self.about = self.azure.description
        self.live = [s["id"] for s in self.about["subscriptions"] if s["state"] == "Enabled"]

    def close(self) -> None:
        for closing in (*self._closing, self.http):
            closing.close()

    @property
    def transport(self) -> dict[str, Any]:
        """What every azure-identity credential needs to reach a private cloud."""
        return {
            "authority": self.about["authority"],
            "disable_instance_discovery": True,
            "connection_verify": str(self.azure.ca_file),
            "retry_total": 0,
        }

    def credential(self, who: str) -> ClientSecretCredential:
        person = self.about[who]
        credential = ClientSecretCredential(
            self.about["tenant"], person["client_id"], person["client_secret"], **self.transport
        )
        self._closing.append(credential)
        return credential

    def network(self, subscription: str, credential: Any, **more: Any) -> NetworkManagementClient:
        return self._client(NetworkManagementClient, subscription, credential, **more)

    def resources(self, subscription: str, credential: Any, **more: Any) -> Any:
        return self._client(ResourceManagementClient, subscription, credential, **more)

    def _client(self, kind: Any, subscription: str, credential: Any, **more: Any) -> Any:
        options = {
            "base_url": self.about["resource_manager"],
            "credential_scopes": [SCOPE],
            "connection_verify": str(self.azure.ca_file),
            "polling_interval": 0.01,
            "retry_total": 0,
        }
        client = kind(credential, subscription, **{**options, **more})
        self._closing.append(client)
        return client

    def token_request(self, **form: str) -> httpx.Response:
        address = f"{self.about['authority']}/{self.about['tenant']}/oauth2/v2.0/token"
        return self.http.post(
            address, data={"grant_type": "client_credentials", "scope": SCOPE, **form}
        )

    def token(self, who: str) -> str:
        if who not in self._tokens:
            answer = self.token_request(**self.about[who])
            self._tokens[who] = answer.raise_for_status().json()["access_token"]
        return self._tokens[who]

    def call(
        self,
        method: str,
        path: str,
        version: str | None = "2024-05-01",
        *,
        who: str = "customer",
        token: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One raw request to ARM; ``path`` may be a whole address (a nextLink)."""
        address = path if path.startswith("https:") else f"{self.about['resource_manager']}{path}"
        headers = {"Authorization": f"Bearer {token or self.token(who)}", **more.pop("headers", {})}
        query = dict(more.pop("params", {}))
        if version and "api-version=" not in path:
            query["api-version"] = version
        return self.http.request(method, address, headers=headers, params=query or None, **more)

    @staticmethod
    def error(answer: httpx.Response) -> tuple[int, str]:
        """Status and code of an ARM error, after checking that the body has ARM's shape."""
        body = answer.json()
        assert set(body) == {"error"}
        assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "details"}
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-ms-request-id"]
        return answer.status_code, body["error"]["code"]

    def resources_of(self, kind: type, subscription: str | None = None) -> list[Any]:
        """Planted resources of a class, in the named subscription or the first live one."""
        wanted = subscription or self.live[0]
        found = self.azure.tenant.subscriptions[wanted].resources.values()
        return [resource for resource in found if isinstance(resource, kind)]

    def new_group(self, rules: list[dict[str, Any]] | None = None, who: str = "customer") -> str:
        """A fresh security group, settled; its id."""
        home = next(iter(self.azure.tenant.subscriptions[self.live[0]].groups.values())).id
        path = f"{home}/providers/Microsoft.Network/networkSecurityGroups/t-{uuid.uuid4().hex[:12]}"
        body = {"location": "westeurope", "properties": {"securityRules": rules or []}}
        answer = self.call("PUT", path, json=body, who=who)
        assert answer.status_code == 201, answer.text
        self.settle(answer)
        return path

    def settle(self, answer: httpx.Response) -> dict[str, Any]:
        """Poll an asynchronous write to its end."""
        for _ in range(10):
            state = self.call("GET", answer.headers["Azure-AsyncOperation"]).json()
            if state["status"] != "InProgress":
                return state
        raise AssertionError("the operation does not end")

    def assertion(self, subject: str, **claims: Any) -> str:
        """A token of the customer's issuer, as Suture signs them."""
        now = int(self.clock())
        key = claims.pop("key", self.issuer_key)
        payload = {
            "iss": self.azure.issuer_url,
            "sub": subject,
            "aud": "api://AzureADTokenExchange",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            **claims,
        }
        return jwt.encode(payload, key, algorithm="RS256", headers={"kid": "suture-1"})

    def credential_path(self, name: str) -> str:
        identity = self.about["remediator"]["resource_id"]
        return f"{identity}/federatedIdentityCredentials/{name}"

    def trust(self, name: str, subject: str, **properties: Any) -> httpx.Response:
        """Add a federated credential to the remediator's identity."""
        body = {
            "issuer": self.azure.issuer_url,
            "subject": subject,
            "audiences": ["api://AzureADTokenExchange"],
            **properties,
        }
        path = self.credential_path(name)
        return self.call("PUT", path, self.IDENTITY, json={"properties": body})

    def grant(self, scope: str, principal: str, role: str) -> str:
        """Assign a role; the assignment's path."""
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        body = {"properties": {"roleDefinitionId": role, "principalId": principal}}
        answer = self.call("PUT", path, self.AUTHORIZATION, json=body)
        assert answer.status_code == 201, answer.text
        return path


@pytest.fixture(scope="session")
def issuer_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def make_fleet(
    tmp_path_factory: pytest.TempPathFactory, issuer_key: rsa.RSAPrivateKey
) -> Iterator[Callable[..., Fleet]]:
    """Starts emulators with the options a test wants; stops them after the module."""
    started: list[Fleet] = []

    def make(subscriptions: int = 2, **options: Any) -> Fleet:
        clock = Clock()
        public = issuer_key.public_key()
        azure = EmulatedAzure(
            subscriptions,
            7,
            tmp_path_factory.mktemp("azure"),
            issuer_public_key_pem=public.public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            ),
            issuer_key_id="suture-1",
            clock=clock,
            **{"retry_after": None, **options},
        )
        azure.start()
        started.append(Fleet(azure, clock, issuer_key))
        return started[-1]

    yield make
    for fleet in started:
        fleet.close()
        fleet.azure.stop()


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet()


@pytest.fixture
def security_rule() -> Callable[..., dict[str, Any]]:
    """The body of a security rule; keywords replace its properties, None removes one."""

    def make(name: str = "AllowWeb", **properties: Any) -> dict[str, Any]:
        complete = {
            "protocol": "Tcp",
            "sourcePortRange": "*",
            "destinationPortRange": "443",
            "sourceAddressPrefix": "*",
            "destinationAddressPrefix": "*",
            "access": "Allow",
            "priority": 100,
            "direction": "Inbound",
            **properties,
        }
        kept = {key: value for key, value in complete.items() if value is not None}
        return {"name": name, "properties": kept}

    return make
