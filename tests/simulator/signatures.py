"""Whether a request is signed with the secret that belongs to its key, by botocore's signer."""

from __future__ import annotations

import hmac

from answers_aws import Request, secret_of
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def is_right(request: Request) -> bool:
    """A request signed in its query (a presigned address) passes unread: no scanner sends one."""
    given = request.header(b"authorization").decode("latin-1")
    if not given:
        return True
    fields = dict(part.strip().partition("=")[::2] for part in given.partition(" ")[2].split(","))
    signed = fields.get("SignedHeaders", "").split(";")
    host = request.header(b"host").decode("latin-1")
    asked = AWSRequest(
        method=request.method.decode(),
        url=f"https://{host}{request.target.decode('latin-1')}",
        data=request.body,
    )
    for name in signed:
        asked.headers[name] = request.header(name.encode()).decode("utf-8", "replace")
    asked.context["timestamp"] = request.header(b"x-amz-date").decode("latin-1")
    key = request.access_key.decode()
    kind = S3SigV4Auth if request.service == b"s3" else SigV4Auth
    signer = kind(
        Credentials(key, secret_of(key)), request.service.decode(), request.region.decode()
    )
    text = signer.string_to_sign(asked, signer.canonical_request(asked))
    return hmac.compare_digest(signer.signature(text, asked), fields.get("Signature", ""))
