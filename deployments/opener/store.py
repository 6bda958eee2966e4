"""What the opener has to remember across restarts and between processes: small JSON documents.

One primitive, so that whatever is decided on a document is decided once: `Store.update` hands the
document to a pure function and writes what it returns only if nobody has written meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import boto3
import httpx
from azure.core.credentials import TokenCredential
from azure.identity import DefaultAzureCredential
from botocore.exceptions import ClientError

from tasks.clouds.sdk_errors import aws_errors, azure_errors
from tasks.errors import BadInput, CloudError

Document = dict[str, Any]
T = TypeVar("T")
V = TypeVar("V")  # of a document: what says whether it is still as it was read
Change = Callable[[Document], tuple[Document | None, T]]

MOST_ATTEMPTS = 60  # of a write that others were faster with; each round, one of them wins
BLOB_SCOPE = "https://storage.azure.com/.default"
BLOB_VERSION = "2023-11-03"
LOOK_SECONDS = 0.05  # between two looks at whether a turn is free


class Store(Protocol):
    """Documents by name. One that has "expires" (epoch seconds) may be forgotten after it."""

    def update(self, name: str, change: Change[T]) -> T:
        """Let ``change`` see the document, {} where there is none, and write what it returns.

        It returns (the new document, or None to leave it, and an answer). It must be pure: where
        others write at the same time it is called again. Raises CloudError when the store is away.
        """
        ...

    def forget_expired(self) -> None:
        """Remove what is past its time, where the store does not do that by itself."""
        ...


class FileStore:
    """A folder of one machine, or one volume: the container's store. Only its owner may read it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def update(self, name: str, change: Change[T]) -> T:
        path = self._folder / f"{_key(name)}.json"
        with self._alone():
            document, answer = change(_read(path))
            if document is not None:
                _write(path, document)
        return answer

    def forget_expired(self) -> None:
        with self._alone():
            for path in self._folder.glob("*.json"):
                if 0 < _read(path).get("expires", 0) < time.time():
                    path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time, in all threads and processes: each has a descriptor of its own."""
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _swapped(
    name: str,
    change: Change[T],
    read: Callable[[str], tuple[V, Document]],
    written: Callable[[str, Document, V], bool],
) -> T:
    """Read, change and write until nobody has written in between. Raises CloudError: too many do.

    ``read`` gives the document with its version, ``written`` says whether it still had that one.
    """
    for _ in range(MOST_ATTEMPTS):
        version, document = read(name)
        changed, answer = change(document)
        if changed is None or written(name, changed, version):
            return answer
        time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - only to get out of each other's way
    raise CloudError("too many write to it at the same time", operation="opener's store")


class DynamoStore:
    """A DynamoDB table with the string key "id" and time to live on "expires": Lambda's store.

    ``change`` and its write are one by a condition on the version that was read.
    """

    def __init__(self, table: str, region: str) -> None:
        self._table = table
        self._client = boto3.client("dynamodb", region_name=region)

    def update(self, name: str, change: Change[T]) -> T:
        return _swapped(name, change, self._read, self._written)

    def forget_expired(self) -> None:
        """The table does it: time to live."""

    def _read(self, name: str) -> tuple[int, Document]:
        with aws_errors("GetItem"):
            item = self._client.get_item(
                TableName=self._table, Key={"id": {"S": _key(name)}}, ConsistentRead=True
            ).get("Item")
        if item is None:
            return 0, {}
        return int(item["version"]["N"]), json.loads(item["document"]["S"])

    def _written(self, name: str, document: Document, version: int) -> bool:
        item = {
            "id": {"S": _key(name)},
            "version": {"N": str(version + 1)},
            "document": {"S": json.dumps(document)},
        }
        if "expires" in document:
            item["expires"] = {"N": str(int(document["expires"]) + 1)}
        with aws_errors("PutItem"):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(id) OR version = :read",
                    ExpressionAttributeValues={":read": {"N": str(version)}},
                )
            except ClientError as error:
                if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                    return False
                raise
        return True


class BlobStore:
    """A container of Azure Blob Storage: the Azure Function's store.

    ``change`` and its write are one by If-Match on the ETag that was read (Put Blob,
    learn.microsoft.com/rest/api/storageservices/put-blob).
    """

    def __init__(
        self, host: str, container: str, credential: TokenCredential | None = None
    ) -> None:
        self._address = f"https://{host}/{container}"
        self._credential = credential or DefaultAzureCredential()
        self._http = httpx.Client(verify=ssl.create_default_context(), timeout=20)

    def update(self, name: str, change: Change[T]) -> T:
        return _swapped(name, change, self._read, self._written)

    def forget_expired(self) -> None:
        """The account does it: a lifecycle rule, a day after the last change."""

    def _read(self, name: str) -> tuple[str, Document]:
        answer = self._send("GET", name)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return "", {}
        _check(answer)
        return answer.headers["etag"], dict(answer.json())

    def _written(self, name: str, document: Document, etag: str) -> bool:
        only = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        answer = self._send(
            "PUT", name, json.dumps(document), {"x-ms-blob-type": "BlockBlob", **only}
        )
        if answer.status_code in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT):
            return False
        _check(answer)
        return True

    def _send(
        self, method: str, name: str, body: str = "", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        with azure_errors("sign in"):
            token = self._credential.get_token(BLOB_SCOPE).token
        own = {"Authorization": f"Bearer {token}", "x-ms-version": BLOB_VERSION}
        try:
            return self._http.request(
                method,
                f"{self._address}/{_key(name)}.json",
                content=body,
                headers={**own, **(headers or {})},
            )
        except httpx.HTTPError as error:
            raise CloudError(type(error).__name__, operation="opener's store") from None


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise CloudError(
            "Blob Storage refused", code=str(answer.status_code), operation="opener's store"
        )


def open_store(address: str, *, credential: TokenCredential | None = None) -> Store:
    """The store at ``address``: file:///folder, dynamodb://region/table or blob://host/container.

    ``credential`` is for Blob Storage; without one the SDK finds its own.
    """
    parts = urlsplit(address)
    if parts.scheme == "file" and parts.path.strip("/"):
        return FileStore(Path(parts.path))
    if parts.scheme == "dynamodb" and parts.netloc and parts.path.strip("/"):
        return DynamoStore(parts.path.strip("/"), parts.netloc)
    if parts.scheme == "blob" and parts.netloc and parts.path.strip("/"):
        return BlobStore(parts.netloc, parts.path.strip("/"), credential)
    raise BadInput(
        "store",
        f"{address!r} is no store.",
        "Write file:///folder, dynamodb://region/table or blob://host/container.",
    )


@contextmanager
def turn(store: Store, what: str, *, seconds: float = 60.0) -> Iterator[None]:
    """Be the only one at ``what``, in all processes; a holder that died gives way in ``seconds``.

    A trust policy is read, changed and written back, and IAM takes no precondition. Raises
    CloudError when the turn does not come in that time.
    """
    own = os.urandom(8).hex()
    give_up = time.monotonic() + seconds

    def take(held: Document) -> tuple[Document | None, bool]:
        if held.get("expires", 0) > time.time():
            return None, False
        return {"holder": own, "expires": time.time() + seconds}, True

    def leave(held: Document) -> tuple[Document | None, None]:
        return ({"expires": 1} if held.get("holder") == own else None), None

    while not store.update(f"turn {what}", take):
        if time.monotonic() > give_up:
            raise CloudError("its turn did not come", operation="opener's store")
        time.sleep(random.uniform(LOOK_SECONDS, 2 * LOOK_SECONDS))  # noqa: S311 - as above
    try:
        yield
    finally:
        store.update(f"turn {what}", leave)


def _key(name: str) -> str:
    """Names hold what others chose; this is fit for a file and a key, and of one length."""
    return hashlib.sha256(name.encode()).hexdigest()[:40]


def _read(path: Path) -> Document:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # never taken for empty: that would forget codes that were used
        raise CloudError("a document is damaged", operation="opener's store") from None
    return dict(document)


def _write(path: Path, document: Document) -> None:
    """Whole or not at all, also when the machine stops in the middle."""
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
