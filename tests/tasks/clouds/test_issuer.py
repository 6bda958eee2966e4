"""What Suture signs can be checked with what it publishes, and its key is kept."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tasks.clouds.issuer import assertion, documents, generate_key
from tasks.errors import BadInput
from tasks.inventory import Issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    generate_key(tmp_path / "key.pem")
    return Issuer(url="https://id.example/suture", key_file=str(tmp_path / "key.pem"), key_id="k1")


def checked(issuer: Issuer, token: str, audience: str = "you") -> dict[str, object]:
    """As a relying party does it: from the published key set alone."""
    (key,) = jwt.PyJWKSet.from_dict(documents(issuer)[1]).keys
    assert jwt.get_unverified_header(token)["kid"] == key.key_id
    claims: dict[str, object] = jwt.decode(
        token, key, algorithms=["RS256"], audience=audience, issuer=issuer.url
    )
    return claims


def test_an_assertion_is_checked_with_the_published_keys(issuer: Issuer) -> None:
    claims = checked(issuer, assertion(issuer, "me", "you").get_secret_value())
    assert claims["sub"] == "me"
    assert claims["exp"] - claims["iat"] == 300  # type: ignore[operator]


def test_no_two_assertions_are_the_same(issuer: Issuer) -> None:
    tokens = [assertion(issuer, "me", "you").get_secret_value() for _ in range(2)]
    first, second = (checked(issuer, token)["jti"] for token in tokens)
    assert first != second


def test_claims_cannot_replace_what_the_issuer_says(issuer: Issuer) -> None:
    token = assertion(issuer, "me", "you", claims={"iss": "x", "exp": 9e9, "plan": "p"})
    claims = checked(issuer, token.get_secret_value())
    assert claims["plan"] == "p"
    assert claims["iss"] == issuer.url


@pytest.mark.parametrize("minutes", [0, -1, 5.5, 60])
def test_an_assertion_lives_for_five_minutes_at_the_most(issuer: Issuer, minutes: float) -> None:
    with pytest.raises(BadInput):
        assertion(issuer, "me", "you", minutes)


def test_the_published_documents_hold_no_private_part(issuer: Issuer) -> None:
    configuration, keys = documents(issuer)
    assert configuration["issuer"] == issuer.url
    assert configuration["jwks_uri"].startswith(f"{issuer.url}/")
    assert set(keys["keys"][0]) == {"kty", "n", "e", "kid", "use", "alg"}


def test_a_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    public = generate_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"BEGIN PUBLIC KEY" in public
    before = path.read_bytes()
    with pytest.raises(BadInput, match="exists"):
        generate_key(path)
    assert path.read_bytes() == before


def test_a_key_that_others_can_read_is_said(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    assertion(issuer, "me", "you")
    assert not caplog.records
    Path(issuer.key_file).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assertion(issuer, "me", "you")
    assert "chmod 600" in caplog.text


def test_an_unusable_key_is_said_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    issuer = Issuer(url="https://id.example", key_file=str(path), key_id="k1")
    with pytest.raises(BadInput, match="cannot be read"):
        assertion(issuer, "me", "you")
    path.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)
    with pytest.raises(BadInput, match="not a private key") as caught:
        assertion(issuer, "me", "you")
    assert "c2VjcmV0" not in str(caught.value)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(BadInput, match="not an RSA key"):
        assertion(issuer, "me", "you")
