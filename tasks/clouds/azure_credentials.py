"""Who reads Azure: the application's credential, and why Entra gave it no token.

azure-identity takes 15 MB and 0.2 s to import: this module is imported where a source is opened,
and by nothing that only may open one.
"""

from __future__ import annotations

import re
from typing import Any

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.identity.aio import CertificateCredential, ClientSecretCredential

from tasks.clouds.aws_credentials import environment
from tasks.clouds.transport import Limits, trust
from tasks.errors import AccessRefused, BadInput, CloudError, CloudTimeout, SutureError, Throttled
from tasks.inventory import AzureSource

PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
_AADSTS = re.compile(r"AADSTS\d+")

AzureCredential = ClientSecretCredential | CertificateCredential


def credential(source: AzureSource, limits: Limits) -> AzureCredential:
    """The credential of a source's application, to be closed. Raises BadInput."""
    trust(source.ca_file)  # says in words what the SDK would say in a stack trace
    options: dict[str, Any] = {
        "authority": source.authority,
        "disable_instance_discovery": source.authority != PUBLIC_AUTHORITY,
        "connection_verify": source.ca_file or True,
        "connection_timeout": limits.connect_seconds,
        "read_timeout": limits.request_seconds,
        "retry_total": limits.patience.attempts - 1,
        "retry_backoff_factor": limits.patience.first_wait,
        "retry_backoff_max": limits.patience.longest_wait,
        "timeout": limits.patience.seconds,
    }
    if source.client_secret_env:
        secret = environment(source.client_secret_env)
        return ClientSecretCredential(source.tenant, source.client_id, secret, **options)
    try:
        return CertificateCredential(
            source.tenant, source.client_id, source.client_certificate, **options
        )
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "no key and certificate in it"
        raise BadInput(
            "client_certificate",
            f"{source.client_certificate} cannot be used: {problem}.",
            "Name a PEM file with the private key and the certificate.",
        ) from None


async def token(of: AzureCredential, audience: str) -> tuple[str, float]:
    """A token for the audience, and when it ends (epoch seconds). Raises CloudError."""
    # As the SDK writes it: one slash between audience and .default.
    scope = f"{audience.rstrip('/')}/.default"
    try:
        issued = await of.get_token(scope)
    except AzureError as error:
        raise _failure(error) from None
    return issued.token, issued.expires_on


def _failure(error: AzureError) -> SutureError:
    """Why Entra gave no token. Its own words carry no secret, but many lines of trace ids."""
    found = _AADSTS.search(str(error))
    code = found.group() if found else ""
    message = (str(error.message).strip().splitlines()[0] if error.message else "")[:300]
    match error:
        case ServiceRequestTimeoutError() | ServiceResponseTimeoutError():
            return CloudTimeout("the authority did not answer in time", operation="get token")
        case HttpResponseError(status_code=429):
            return Throttled(message, code=code, operation="get token")
        case ClientAuthenticationError():
            return AccessRefused(message, code=code, operation="get token")
        case _:
            return CloudError(message, code=code, operation="get token")
