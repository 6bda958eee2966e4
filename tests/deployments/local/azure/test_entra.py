"""Entra's token endpoint, driven by azure-identity and by hand."""

from __future__ import annotations

import base64
import datetime
import logging
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

pytestmark = pytest.mark.slow

SCOPE = "https://management.azure.com/.default"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def refusal(answer: httpx.Response) -> tuple[int, str, int]:
    """(status, error, AADSTS number), after checking that the body has Entra's shape."""
    body = answer.json()
    assert set(body) == {
        "error",
        "error_description",
        "error_codes",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    }
    number = body["error_codes"][0]
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert f"Trace ID: {body['trace_id']}" in body["error_description"]
    return answer.status_code, body["error"], number


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


# Secrets


def test_a_secret_gets_a_token_that_arm_takes(fleet: Any) -> None:
    token = fleet.credential("scanner").get_token(SCOPE)
    claims = claims_of(token.token)
    assert claims["appid"] == fleet.about["scanner"]["client_id"]
    assert claims["tid"] == fleet.about["tenant"]
    assert claims["aud"] == "https://management.azure.com"
    assert claims["oid"] != claims["appid"]
    assert claims["exp"] - time.time() == pytest.approx(token.expires_on - time.time(), abs=5)
    answer = fleet.call("GET", "/subscriptions", fleet.RESOURCES, token=token.token)
    assert answer.status_code == 200


def test_tokens_verify_against_the_published_keys(fleet: Any) -> None:
    base = f"{fleet.about['authority']}/{fleet.about['tenant']}"
    document = fleet.http.get(f"{base}/v2.0/.well-known/openid-configuration").json()
    assert document["token_endpoint"] == f"{base}/oauth2/v2.0/token"
    keys = jwt.PyJWKSet.from_dict(fleet.http.get(document["jwks_uri"]).json())
    token = fleet.token("scanner")
    key = keys[jwt.get_unverified_header(token)["kid"]]
    jwt.decode(token, key, algorithms=["RS256"], audience="https://management.azure.com")


def test_a_wrong_secret_is_7000215(fleet: Any) -> None:
    about = fleet.about
    with (
        ClientSecretCredential(
            about["tenant"], about["scanner"]["client_id"], "guess", **fleet.transport
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215") as caught,
    ):
        credential.get_token(SCOPE)
    assert "guess" not in str(caught.value)
    answer = fleet.token_request(client_id=about["scanner"]["client_id"], client_secret="guess")
    assert refusal(answer) == (401, "invalid_client", 7000215)


def test_an_expired_secret_is_7000222(fleet: Any) -> None:
    client_id = fleet.about["scanner"]["client_id"]
    fleet.azure.tenant.principals[client_id].add_secret("old", expires=fleet.clock() - 1)
    answer = fleet.token_request(client_id=client_id, client_secret="old")
    assert refusal(answer) == (401, "invalid_client", 7000222)


def test_an_unknown_application_is_700016(fleet: Any) -> None:
    with (
        ClientSecretCredential(
            fleet.about["tenant"], str(uuid.uuid4()), "x", **fleet.transport
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS700016"),
    ):
        credential.get_token(SCOPE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grant_type": "password"}, (400, "unsupported_grant_type", 70003)),
        ({"grant_type": ""}, (400, "invalid_request", 900144)),
        ({"client_id": ""}, (400, "invalid_request", 900144)),
        ({"scope": ""}, (400, "invalid_request", 900144)),
        ({"scope": "https://management.azure.com/user"}, (400, "invalid_scope", 1002012)),
        ({"scope": "https://elsewhere.example/.default"}, (400, "invalid_resource", 500011)),
    ],
)
def test_bad_requests(fleet: Any, change: dict[str, str], expected: tuple[int, str, int]) -> None:
    assert refusal(fleet.token_request(**{**fleet.about["scanner"], **change})) == expected


def test_no_credential_at_all_is_7000218(fleet: Any) -> None:
    answer = fleet.token_request(client_id=fleet.about["scanner"]["client_id"])
    assert refusal(answer) == (401, "invalid_client", 7000218)


def test_another_tenant_is_90002(fleet: Any) -> None:
    address = f"{fleet.about['authority']}/{uuid.uuid4()}/oauth2/v2.0/token"
    answer = fleet.http.post(address, data={"grant_type": "client_credentials"})
    assert refusal(answer) == (400, "invalid_request", 90002)


def test_version_one_tokens_are_asked_for_by_resource(fleet: Any) -> None:
    address = f"{fleet.about['authority']}/{fleet.about['tenant']}/oauth2/token"
    form = {
        "grant_type": "client_credentials",
        "resource": "https://management.azure.com/",
        **fleet.about["scanner"],
    }
    token = fleet.http.post(address, data=form).json()["access_token"]
    assert claims_of(token)["aud"] == "https://management.azure.com/"
    assert fleet.call("GET", "/subscriptions", "2022-12-01", token=token).status_code == 200


# Certificates


@pytest.fixture(scope="module")
def signer(fleet: Any) -> Iterator[tuple[rsa.RSAPrivateKey, x509.Certificate]]:
    """A certificate registered on the scanner's application, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scanner")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    principal = fleet.azure.tenant.principals[fleet.about["scanner"]["client_id"]]
    principal.certificates.append(certificate)
    yield key, certificate
    principal.certificates.remove(certificate)


def thumbprint(certificate: x509.Certificate, algorithm: hashes.HashAlgorithm) -> str:
    digest = certificate.fingerprint(algorithm)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def certificate_assertion(fleet: Any, signer: Any, header: str = "x5t", **claims: Any) -> str:
    key, certificate = signer
    client_id, now = fleet.about["scanner"]["client_id"], int(time.time())
    algorithm = hashes.SHA1() if header == "x5t" else hashes.SHA256()
    payload = {
        "aud": f"{fleet.about['authority']}/{fleet.about['tenant']}/oauth2/v2.0/token",
        "iss": client_id,
        "sub": client_id,
        "jti": str(uuid.uuid4()),
        "nbf": now,
        "exp": now + 300,
        **claims,
    }
    headers = {header: thumbprint(certificate, algorithm)}
    return jwt.encode(payload, claims.pop("key", key), algorithm="RS256", headers=headers)


def by_assertion(fleet: Any, who: str, assertion: str) -> httpx.Response:
    return fleet.token_request(
        client_id=fleet.about[who]["client_id"],
        client_assertion=assertion,
        client_assertion_type=JWT_BEARER,
    )


def test_azure_identity_gets_a_token_by_certificate(fleet: Any, signer: Any) -> None:
    key, certificate = signer
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with CertificateCredential(
        fleet.about["tenant"],
        fleet.about["scanner"]["client_id"],
        certificate_data=pem + certificate.public_bytes(Encoding.PEM),
        **fleet.transport,
    ) as credential:
        token = credential.get_token(SCOPE).token
    assert claims_of(token)["appid"] == fleet.about["scanner"]["client_id"]


@pytest.mark.parametrize("header", ["x5t", "x5t#S256"])
def test_rs256_assertions_by_either_thumbprint(fleet: Any, signer: Any, header: str) -> None:
    answer = by_assertion(fleet, "scanner", certificate_assertion(fleet, signer, header))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("claims", "number"),
    [
        ({"aud": "https://elsewhere.example/token"}, 700023),
        ({"sub": "somebody-else"}, 700021),
        ({"exp": datetime.timedelta(seconds=-1)}, 700024),
        ({"nbf": datetime.timedelta(hours=1), "exp": datetime.timedelta(hours=2)}, 700024),
    ],
)
def test_certificate_assertions_that_lie(
    fleet: Any, signer: Any, claims: dict[str, Any], number: int, from_now: Any
) -> None:
    assertion = certificate_assertion(fleet, signer, **from_now(claims))
    answer = by_assertion(fleet, "scanner", assertion)
    assert refusal(answer) == (401, "invalid_client", number)


def test_a_certificate_nobody_registered_is_700027(fleet: Any, signer: Any) -> None:
    key, certificate = signer
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = certificate_assertion(fleet, (stranger, certificate))
    assert refusal(by_assertion(fleet, "scanner", forged))[2] == 700027
    client_id = fleet.about["scanner"]["client_id"]
    unnamed = jwt.encode(
        {"iss": client_id, "sub": client_id, "exp": int(time.time()) + 60}, key, algorithm="RS256"
    )
    assert refusal(by_assertion(fleet, "scanner", unnamed))[2] == 700027


def test_nonsense_is_50027(fleet: Any) -> None:
    assert refusal(by_assertion(fleet, "scanner", "not.a.token"))[2] == 50027


# Federation


@pytest.fixture
def trusted(fleet: Any) -> Iterator[str]:
    """The subject of a federated credential on the remediator; taken away afterwards."""
    subject = f"{fleet.about['gate_id']}:{uuid.uuid4().hex}"
    assert fleet.trust("gate", subject).status_code == 201
    yield subject
    fleet.call("DELETE", fleet.credential_path("gate"), fleet.IDENTITY)


def test_azure_identity_gets_a_token_by_federation(fleet: Any, trusted: str) -> None:
    with ClientAssertionCredential(
        fleet.about["tenant"],
        fleet.about["remediator"]["client_id"],
        lambda: fleet.assertion(trusted),
        **fleet.transport,
    ) as credential:
        claims = claims_of(credential.get_token(SCOPE).token)
    assert claims["oid"] == fleet.about["remediator"]["principal_id"]


def test_without_any_federated_credential_it_is_70021(fleet: Any) -> None:
    answer = by_assertion(fleet, "remediator", fleet.assertion("x"))
    assert refusal(answer) == (401, "invalid_client", 70021)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"sub": "{gate}:000000"}, 700213),
        ({"sub": "{subject} "}, 700213),
        ({"sub": "{SUBJECT}"}, 700213),
        ({"iss": "https://elsewhere.example/issuer"}, 700211),
        ({"iss": "{issuer}/"}, 700211),
        ({"aud": "api://azureadtokenexchange"}, 700212),
        ({"aud": "https://management.azure.com/"}, 700212),
        ({"exp": 1}, 700024),
        ({"exp": None}, 700024),
        ({"nbf": 4102444800, "exp": 4102448400}, 700024),
    ],
)
def test_every_part_of_an_assertion_must_match_exactly(
    fleet: Any, trusted: str, change: dict[str, Any], number: int
) -> None:
    words = {
        "{gate}": fleet.about["gate_id"],
        "{subject}": trusted,
        "{SUBJECT}": trusted.upper(),
        "{issuer}": fleet.azure.issuer_url,
    }
    for word, value in words.items():
        change = {k: v.replace(word, value) if isinstance(v, str) else v for k, v in change.items()}
    answer = by_assertion(fleet, "remediator", fleet.assertion(trusted, **change))
    assert refusal(answer) == (401, "invalid_client", number)
    assert trusted not in answer.text
    assert "000000" not in answer.json()["error_description"].split("Trace ID")[0]


def test_the_issuers_signature_is_checked(fleet: Any, trusted: str) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = fleet.assertion(trusted, key=stranger)
    assert refusal(by_assertion(fleet, "remediator", forged))[2] == 700027
    header, payload, _ = fleet.assertion(trusted).split(".")
    assert refusal(by_assertion(fleet, "remediator", f"{header}.{payload}."))[2] == 700027
    unsigned = jwt.encode(claims_of(fleet.assertion(trusted)), None, algorithm="none")
    assert refusal(by_assertion(fleet, "remediator", unsigned))[2] == 700027


def test_a_subject_trusted_from_another_issuer_is_not_trusted_from_ours(
    fleet: Any, trusted: str
) -> None:
    assert fleet.trust("other", "theirs", issuer="https://elsewhere.example").status_code == 201
    try:
        answer = by_assertion(fleet, "remediator", fleet.assertion("theirs"))
    finally:
        fleet.call("DELETE", fleet.credential_path("other"), fleet.IDENTITY)
    assert refusal(answer)[2] == 700213


def test_an_issuer_that_cannot_be_read_is_50166(fleet: Any) -> None:
    issuer = f"{fleet.about['resource_manager']}/nowhere"
    fleet.trust("broken", "x", issuer=issuer)
    try:
        answer = by_assertion(fleet, "remediator", fleet.assertion("x", iss=issuer))
    finally:
        fleet.call("DELETE", fleet.credential_path("broken"), fleet.IDENTITY)
    assert refusal(answer) == (400, "invalid_request", 50166)


def test_a_token_outlives_the_credential_that_got_it(fleet: Any) -> None:
    fleet.trust("brief", "brief-subject")
    answer = by_assertion(fleet, "remediator", fleet.assertion("brief-subject"))
    token = answer.json()["access_token"]
    fleet.call("DELETE", fleet.credential_path("brief"), fleet.IDENTITY)
    again = by_assertion(fleet, "remediator", fleet.assertion("brief-subject"))
    assert refusal(again)[2] == 70021
    listed = fleet.call("GET", "/subscriptions", fleet.RESOURCES, token=token)
    assert (listed.status_code, listed.json()["value"]) == (200, [])


def test_trust_takes_its_time_both_ways(make_fleet: Any) -> None:
    fleet = make_fleet(federation_delay=60.0)
    fleet.trust("slow", "s")
    assert refusal(by_assertion(fleet, "remediator", fleet.assertion("s")))[2] == 70021
    fleet.clock.ahead += 61
    assert by_assertion(fleet, "remediator", fleet.assertion("s")).status_code == 200
    fleet.call("DELETE", fleet.credential_path("slow"), fleet.IDENTITY)
    assert by_assertion(fleet, "remediator", fleet.assertion("s")).status_code == 200
    fleet.clock.ahead += 61
    assert refusal(by_assertion(fleet, "remediator", fleet.assertion("s")))[2] == 70021


def test_the_issuers_documents_are_public(fleet: Any) -> None:
    url = fleet.azure.issuer_url
    document = fleet.http.get(f"{url}/.well-known/openid-configuration").json()
    assert document["issuer"] == url
    keys = fleet.http.get(document["jwks_uri"]).json()["keys"]
    assert [(key["kid"], key["kty"], key["use"]) for key in keys] == [("suture-1", "RSA", "sig")]
    assert "d" not in keys[0]


def test_nothing_secret_is_logged(
    fleet: Any, trusted: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = fleet.about["scanner"]["client_secret"]
    for logger in ("", "aiohttp.server", "aiohttp.access", "aiohttp.client", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=logger)
    assertion = fleet.assertion(trusted)
    token = by_assertion(fleet, "remediator", assertion).json()["access_token"]
    by_assertion(fleet, "remediator", fleet.assertion(trusted, aud="wrong"))
    fleet.token_request(**fleet.about["scanner"])
    fleet.call("GET", "/subscriptions", fleet.RESOURCES, token=token)
    assert not any(word in caplog.text for word in (secret, trusted, assertion, token))
