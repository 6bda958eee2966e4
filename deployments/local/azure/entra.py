"""Entra: the token endpoint, its discovery documents, and the tokens it signs.

Log lines and error texts never carry secrets, assertions, subjects or tokens.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import jwt
import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from deployments.local.azure.protocol import ArmError, Caller
from deployments.local.azure.tenant import FederatedCredential, ServicePrincipal, Tenant
from deployments.local.issued import note

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
STORAGE_AUDIENCE = "https://storage.azure.com"
OTHER_AUDIENCES = (
    "https://graph.microsoft.com",
    "https://management.core.windows.net",
    STORAGE_AUDIENCE,
)
_KEYS_FRESH_SECONDS = 30.0


class EntraError(Exception):
    """A refusal of the token endpoint, rendered in Entra's JSON shape. ``number`` is AADSTS's."""

    def __init__(self, status: int, error: str, number: int, message: str) -> None:
        super().__init__(f"AADSTS{number}")
        self.status = status
        self.error = error
        self.number = number
        self.message = message

    def body(self, authority: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.number}: {self.message} Trace ID: {trace} "
            f"Correlation ID: {correlation} Timestamp: {now}",
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"{authority}/error?code={self.number}",
        }


def _invalid_client(number: int, message: str) -> EntraError:
    return EntraError(401, "invalid_client", number, message)


def jwk(public_key: rsa.RSAPublicKey, key_id: str | None = None) -> dict[str, str]:
    """A public RSA key as a JWK; the key id defaults to its RFC 7638 thumbprint."""
    numbers = public_key.public_numbers()
    n, e = (_base64url(_big_endian(x)) for x in (numbers.n, numbers.e))
    canonical = f'{{"e":"{e}","kty":"RSA","n":"{n}"}}'.encode()
    thumbprint = _base64url(hashlib.sha256(canonical).digest())
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": key_id or thumbprint,
        "n": n,
        "e": e,
    }


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(slots=True)
class _IssuerKeys:
    fetched: float
    keys: dict[str, Any]


class TokenService:
    """Issues access tokens, and reads them back for ARM and for the storage service."""

    def __init__(self, tenant: Tenant, authority: str, lifetime: int = 3599) -> None:
        self.tenant = tenant
        self.authority = authority
        self.lifetime = lifetime
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._jwk = jwk(self._key.public_key())
        self._read: dict[str, dict[str, Any]] = {}

    @property
    def issuer(self) -> str:
        """Access tokens for ARM are version 1: their issuer is the security token service."""
        return f"https://sts.windows.net/{self.tenant.id}/"

    def keys(self) -> dict[str, Any]:
        return {"keys": [self._jwk]}

    def sign(self, principal: ServicePrincipal, audience: str, **claims: Any) -> str:
        """A signed access token. ``claims`` override what it would say, for tests of ARM."""
        now = int(self.tenant.clock())
        payload = {
            "aud": audience,
            "iss": self.issuer,
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "appid": principal.client_id,
            "appidacr": "1",
            "idp": self.issuer,
            "idtyp": "app",
            "oid": principal.object_id,
            "sub": principal.object_id,
            "tid": self.tenant.id,
            "uti": _base64url(uuid.uuid4().bytes),
            "ver": "1.0",
            **self._resource_of(principal),
            **claims,
        }
        key_id = {"kid": self._jwk["kid"]}
        token = jwt.encode(payload, self._key, algorithm="RS256", headers=key_id)
        note("access token", token)
        return token

    def _resource_of(self, principal: ServicePrincipal) -> dict[str, str]:
        """The claim that tells which managed identity a token is for; applications have none."""
        if principal.secret_hashes or principal.certificates:
            return {}
        for resource in self.tenant.every_resource():
            if getattr(resource, "principal", None) is principal:
                return {"xms_mirid": resource.id}
        return {}

    def authenticate(self, header: str | None, *audiences: str) -> Caller:
        """Who the Authorization header speaks for; 401 when it is missing, bad, old or foreign.

        ``audiences`` are whom the token may be for, without slashes at their ends; ARM unless
        they are named.
        """
        if not header:
            raise self._unauthorized(
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
            )
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise self._unauthorized(
                "AuthenticationFailedInvalidHeader",
                "Authentication failed. The 'Authorization' header is provided in an invalid "
                "format.",
            )
        claims = self._claims(token)
        self._check_audience(claims, audiences or self._arm_audiences())
        self._check_time(claims)
        return Caller(claims["oid"], claims["appid"], claims)

    def _claims(self, token: str) -> dict[str, Any]:
        """Claims of a token whose signature and tenant are right; verified once each."""
        if known := self._read.get(token):
            return known
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["RS256"],
                options={
                    "require": ["oid", "appid", "aud", "exp", "iss", "tid"],
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError as error:
            raise self._unauthorized(
                "InvalidAuthenticationToken", "The access token is invalid."
            ) from error
        if claims["tid"] != self.tenant.id or claims["iss"] != self.issuer:
            raise self._unauthorized(
                "InvalidAuthenticationTokenTenant",
                f"The access token is from the wrong issuer '{claims['iss']}'. It must match the "
                f"tenant '{self.issuer}' associated with this subscription.",
            )
        if len(self._read) > 2000:
            self._read.clear()
        self._read[token] = claims
        return claims

    def _check_audience(self, claims: dict[str, Any], audiences: tuple[str, ...]) -> None:
        if claims["aud"].rstrip("/") not in audiences:
            raise self._unauthorized(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource "
                f"'{claims['aud']}'. It should exactly match with one of the allowed audiences "
                f"{', '.join(repr(a + '/') for a in audiences)}.",
            )

    def _arm_audiences(self) -> tuple[str, ...]:
        return (self.tenant.audience.rstrip("/"), "https://management.core.windows.net")

    def _check_time(self, claims: dict[str, Any]) -> None:
        now = self.tenant.clock()
        if not claims.get("nbf", 0) - 300 <= now < claims["exp"]:
            expiry, current = (
                datetime.fromtimestamp(x, UTC).strftime("%m/%d/%Y %H:%M:%S")
                for x in (claims["exp"], now)
            )
            raise self._unauthorized(
                "ExpiredAuthenticationToken",
                f"The access token expiry UTC time '{expiry}' is earlier than current UTC time "
                f"'{current}'.",
            )

    def _unauthorized(self, code: str, message: str) -> ArmError:
        challenge = (
            f'Bearer authorization_uri="{self.authority}/{self.tenant.id}", '
            f'error="invalid_token", error_description="{message}"'
        )
        return ArmError(401, code, message, headers={"WWW-Authenticate": challenge})


class Entra:
    """The authority: https://localhost:PORT. ``ssl_context`` is what issuers are read with."""

    def __init__(
        self, tenant: Tenant, tokens: TokenService, authority: str, ssl_context: ssl.SSLContext
    ) -> None:
        self.tenant = tenant
        self.tokens = tokens
        self.authority = authority
        self._ssl = ssl_context
        self._issuers: dict[str, _IssuerKeys] = {}

    def application(self) -> web.Application:
        application = web.Application(client_max_size=256 * 1024)
        application.router.add_get("/common/discovery/instance", self._instances)
        application.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._openid)
        application.router.add_get("/{tenant}/.well-known/openid-configuration", self._openid)
        application.router.add_get("/{tenant}/discovery/v2.0/keys", self._keys)
        application.router.add_get("/{tenant}/discovery/keys", self._keys)
        application.router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        application.router.add_post("/{tenant}/oauth2/token", self._token)
        return application

    async def _instances(self, request: web.Request) -> web.Response:
        return _json(
            200,
            {
                "tenant_discovery_endpoint": f"{self.authority}/{self.tenant.id}/v2.0"
                "/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [],
            },
        )

    async def _openid(self, request: web.Request) -> web.Response:
        try:
            self._check_tenant(request)
        except EntraError as error:
            return _json(error.status, error.body(self.authority))
        base = f"{self.authority}/{self.tenant.id}"
        return _json(
            200,
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
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                "tenant_region_scope": "EU",
                "cloud_instance_name": "localhost",
            },
        )

    async def _keys(self, request: web.Request) -> web.Response:
        return _json(200, self.tokens.keys())

    async def _token(self, request: web.Request) -> web.Response:
        try:
            self._check_tenant(request)
            form = {key: str(value) for key, value in (await request.post()).items()}
            answer = await self._grant(form, str(request.path))
        except EntraError as error:
            return _json(error.status, error.body(self.authority))
        return _json(200, answer, {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"})

    def _check_tenant(self, request: web.Request) -> None:
        name = request.match_info["tenant"]
        if name.lower() != self.tenant.id:
            raise EntraError(
                400,
                "invalid_request",
                90002,
                f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID "
                "and are signing into the correct cloud.",
            )

    async def _grant(self, form: dict[str, str], path: str) -> dict[str, Any]:
        _require(form, "grant_type", "client_id")
        if form["grant_type"] != "client_credentials":
            raise EntraError(
                400,
                "unsupported_grant_type",
                70003,
                "The app requested an unsupported grant type.",
            )
        audience = self._audience(form)
        principal = self.tenant.principals.get(form["client_id"].lower())
        if principal is None:
            raise EntraError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{form['client_id']}' was not found in the "
                f"directory '{self.tenant.id}'.",
            )
        await self._authenticate(principal, form, path)
        return {
            "token_type": "Bearer",
            "expires_in": self.tokens.lifetime,
            "ext_expires_in": self.tokens.lifetime,
            "access_token": self.tokens.sign(
                principal, audience, appidacr="1" if "client_secret" in form else "2"
            ),
        }

    def _audience(self, form: dict[str, str]) -> str:
        """The resource asked for: by scope "<resource>/.default", or by version 1's "resource"."""
        wanted = form.get("resource") or ""
        if not wanted:
            _require(form, "scope")
            scope = form["scope"].split()[0] if form["scope"].split() else ""
            if not scope.endswith("/.default"):
                raise EntraError(
                    400,
                    "invalid_scope",
                    1002012,
                    "The provided value for scope is not valid. Client credential flows must "
                    "have a scope value with /.default suffixed to the resource identifier.",
                )
            wanted = scope.removesuffix("/.default")
        known = (self.tenant.audience.rstrip("/"), *OTHER_AUDIENCES)
        if wanted.rstrip("/") not in known:
            raise EntraError(
                400,
                "invalid_resource",
                500011,
                f"The resource principal named {wanted} was not found in the tenant named "
                f"{self.tenant.id}.",
            )
        return wanted

    async def _authenticate(
        self, principal: ServicePrincipal, form: dict[str, str], path: str
    ) -> None:
        if "client_secret" in form:
            self._check_secret(principal, form["client_secret"])
            return
        assertion = form.get("client_assertion")
        if not assertion:
            raise _invalid_client(
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or "
                "'client_secret'.",
            )
        if form.get("client_assertion_type") != JWT_BEARER:
            raise _invalid_client(
                50027, "The client assertion type is not supported, or is not given."
            )
        header, claims = _unverified(assertion)
        if claims.get("iss") == principal.client_id:
            self._check_certificate(principal, assertion, header, claims, path)
        else:
            await self._check_federated(principal, assertion, header, claims)

    def _check_secret(self, principal: ServicePrincipal, secret: str) -> None:
        expiry = principal.secret_expiry(secret)
        if expiry is None:
            raise _invalid_client(
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is "
                "the client secret value, not the client secret ID, for a secret added to app "
                f"'{principal.client_id}'.",
            )
        if expiry <= self.tenant.clock():
            raise _invalid_client(
                7000222,
                f"The provided client secret keys for app '{principal.client_id}' are expired.",
            )

    def _check_certificate(
        self,
        principal: ServicePrincipal,
        assertion: str,
        header: dict[str, Any],
        claims: dict[str, Any],
        path: str,
    ) -> None:
        certificate = _certificate_for(principal, header)
        if certificate is None:
            raise _invalid_client(
                700027,
                "The certificate with identifier used to sign the client assertion is not "
                "registered on application.",
            )
        _check_signature(assertion, certificate.public_key(), ["RS256", "PS256"])
        if claims.get("sub") != principal.client_id:
            raise _invalid_client(
                700021,
                "Client assertion application identifier doesn't match 'client_id' parameter.",
            )
        base = f"{self.authority}/{self.tenant.id}"
        audiences = {f"{self.authority}{path}", f"{base}/v2.0", f"{base}/oauth2/v2.0/token"}
        if claims.get("aud") not in audiences:
            raise _invalid_client(
                700023, "Client assertion audience claim does not match Realm issuer."
            )
        self._check_period(claims)

    async def _check_federated(
        self,
        principal: ServicePrincipal,
        assertion: str,
        header: dict[str, Any],
        claims: dict[str, Any],
    ) -> None:
        """Issuer, signature, time, subject, audience, in Entra's order; all match exactly."""
        held = principal.federated_in_force(self.tenant.clock())
        if not held:
            raise _invalid_client(
                70021, "No matching federated identity record found for presented assertion."
            )
        by_issuer = [x for x in held if x.issuer == claims.get("iss")]
        if not by_issuer:
            raise _no_record(700211, "issuer")
        key = await self._issuer_key(by_issuer[0].issuer, header)
        _check_signature(assertion, key, ["RS256"])
        self._check_period(claims)
        by_subject = [x for x in by_issuer if x.subject == claims.get("sub")]
        if not by_subject:
            raise _no_record(700213, "subject")
        if not any(_audience_matches(x, claims.get("aud")) for x in by_subject):
            raise _no_record(700212, "audience")

    def _check_period(self, claims: dict[str, Any]) -> None:
        now = self.tenant.clock()
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        numbers = isinstance(expires, int | float) and isinstance(begins, int | float)
        # Five minutes of grace for the signer's clock, before its period only.
        if not numbers or not begins - 300 <= now < expires:
            raise _invalid_client(700024, "Client assertion is not within its valid time range.")

    async def _issuer_key(self, issuer: str, header: dict[str, Any]) -> Any:
        """The issuer's public key, read from the issuer over HTTPS; unknown ids are read anew."""
        key_id = header.get("kid")
        known = self._issuers.get(issuer)
        fresh = known and time.monotonic() - known.fetched < _KEYS_FRESH_SECONDS
        if known is None or not fresh or key_id not in known.keys:
            known = _IssuerKeys(time.monotonic(), await self._fetch_keys(issuer))
            self._issuers[issuer] = known
        if key_id not in known.keys:
            raise _invalid_client(
                700027, "The key was not found: client assertion failed signature validation."
            )
        return known.keys[key_id]

    async def _fetch_keys(self, issuer: str) -> dict[str, Any]:
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            connector = aiohttp.TCPConnector(ssl=self._ssl)
            async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
                document = await _get_json(
                    session, f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                )
                address = document.get("jwks_uri")
                if document.get("issuer") != issuer or not str(address).startswith("https://"):
                    raise _oidc_failed()
                keys = jwt.PyJWKSet.from_dict(await _get_json(session, str(address)))
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            raise _oidc_failed() from error
        return {key.key_id: key.key for key in keys.keys if key.key_type == "RSA"}


async def _get_json(session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    async with session.get(address, allow_redirects=False, raise_for_status=True) as answer:
        document = orjson.loads(await answer.read())
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


def _require(form: dict[str, str], *names: str) -> None:
    for name in names:
        if not form.get(name):
            raise EntraError(
                400,
                "invalid_request",
                900144,
                f"The request body must contain the following parameter: '{name}'.",
            )


def _unverified(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise _invalid_client(50027, "JWT token is invalid or malformed.") from error
    return header, claims


def _check_signature(assertion: str, key: Any, algorithms: list[str]) -> None:
    try:
        jwt.decode(
            assertion,
            key,
            algorithms=algorithms,
            options={
                "verify_aud": False,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except jwt.InvalidTokenError as error:
        raise _invalid_client(700027, "Client assertion failed signature validation.") from error


def _certificate_for(
    principal: ServicePrincipal, header: dict[str, Any]
) -> x509.Certificate | None:
    """The registered certificate that the header's thumbprint names (x5t or x5t#S256)."""
    for certificate in principal.certificates:
        sha1 = _base64url(certificate.fingerprint(hashes.SHA1()))  # noqa: S303 - x5t is SHA-1
        sha256 = _base64url(certificate.fingerprint(hashes.SHA256()))
        presented = {str(header.get(name, "")).rstrip("=") for name in ("x5t", "x5t#S256")} - {""}
        if presented and presented <= {sha1, sha256}:
            return certificate
    return None


def _audience_matches(credential: FederatedCredential, presented: object) -> bool:
    given = presented if isinstance(presented, list) else [presented]
    return any(audience in credential.audiences for audience in given)


def _no_record(number: int, part: str) -> EntraError:
    return _invalid_client(
        number, f"No matching federated identity record found for presented assertion {part}."
    )


def _oidc_failed() -> EntraError:
    return EntraError(
        400, "invalid_request", 50166, "Request to the external OIDC endpoint failed."
    )
