"""Where moto strays from IAM on server certificates."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse


def install() -> None:
    IamResponse.list_server_certificates = _list_server_certificates


def _list_server_certificates(self: IamResponse) -> ActionResult:
    """To moto every certificate expired in 2012."""
    known = self.backend.certificates
    listed = [_metadata(identity, one) for identity, one in known.items()]
    return ActionResult({"ServerCertificateMetadataList": listed, "IsTruncated": False})


def _metadata(identity: str, certificate: Any) -> dict[str, Any]:
    dates = {}
    try:
        read = x509.load_pem_x509_certificate(certificate.cert_body.encode())
    except ValueError:  # moto takes any text for a certificate
        pass
    else:
        dates = {"Expiration": read.not_valid_after_utc, "UploadDate": read.not_valid_before_utc}
    return {
        "ServerCertificateName": certificate.cert_name,
        "Path": certificate.path,
        "Arn": certificate.arn,
        "ServerCertificateId": identity,
        **dates,
    }
