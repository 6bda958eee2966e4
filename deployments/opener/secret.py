"""Reads a secret where the customer keeps it: a file, AWS Secrets Manager or Azure Key Vault."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import httpx
from azure.core.credentials import TokenCredential
from azure.identity import DefaultAzureCredential
from pydantic import SecretStr

from tasks.clouds.sdk_errors import aws_errors, azure_errors
from tasks.errors import AccessRefused, BadInput, CloudError

VAULT_API = "7.4"
_OPERATION = "read secret"


def read_secret(address: str, *, credential: TokenCredential | None = None) -> SecretStr:
    """The secret at ``address``, without white space round it.

    file:///path, secretsmanager://region/name (its SecretString), keyvault://host/name; the last
    with ``?scope=…`` where a vault's tokens are not for its host's domain. ``credential`` is for
    Key Vault; without one the SDK finds its own. Raises BadInput for an address that is none,
    CloudError when the secret cannot be read.
    """
    parts = urlsplit(address)
    name = parts.path.strip("/")
    if name and parts.scheme == "file":
        return _of_file(Path(parts.path))
    if name and parts.netloc and parts.scheme == "secretsmanager":
        return _of_secrets_manager(parts.netloc, name)
    if name and parts.netloc and parts.scheme == "keyvault":
        scope = parse_qs(parts.query).get("scope", [""])[0]
        return _of_key_vault(parts.netloc, name, scope, credential or DefaultAzureCredential())
    raise BadInput(
        "secret",
        "its address is none.",
        "Write file:///path, secretsmanager://region/name or keyvault://host/name.",
    )


def _of_file(path: Path) -> SecretStr:
    try:
        return SecretStr(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise CloudError(f"{path}: {reason}", operation=_OPERATION) from None


def _of_secrets_manager(region: str, name: str) -> SecretStr:
    with aws_errors("GetSecretValue"):
        answer = boto3.client("secretsmanager", region_name=region).get_secret_value(SecretId=name)
    if "SecretString" not in answer:
        raise CloudError("it is binary, not text", operation=_OPERATION)
    return SecretStr(answer["SecretString"].strip())


def _of_key_vault(host: str, name: str, scope: str, credential: TokenCredential) -> SecretStr:
    """GET {vault}/secrets/{name}, of the Key Vault REST API.

    A vault's tokens are for the domain its host is in: https://vault.azure.net for the public one.
    """
    with azure_errors("sign in"):
        token = credential.get_token(scope or f"https://{host.partition('.')[2]}/.default").token
    try:
        answer = httpx.get(
            f"https://{host}/secrets/{quote(name)}",
            params={"api-version": VAULT_API},
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(),  # which SSL_CERT_FILE adds to
            timeout=20,
        )
    except httpx.HTTPError as error:
        problem = f"Key Vault cannot be asked: {type(error).__name__}"
        raise CloudError(problem, operation=_OPERATION) from None
    if answer.status_code in (401, 403):
        raise AccessRefused("Key Vault refused", code=str(answer.status_code), operation=_OPERATION)
    try:
        value = answer.json()["value"] if answer.is_success else None
    except (ValueError, KeyError):
        value = None
    if not isinstance(value, str):
        raise CloudError(
            "Key Vault gave no secret", code=str(answer.status_code), operation=_OPERATION
        )
    return SecretStr(value.strip())
