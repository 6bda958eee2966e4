"""Whose keys sign what: Suture's own AWS identity, and the role sessions it gets from STS."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from botocore.exceptions import BotoCoreError

from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_request import AwsCredentials
from tasks.errors import AccessRefused, BadInput
from tasks.inventory import AwsSource, HubCredentials

if TYPE_CHECKING:  # imported where it is needed: named keys need none of it
    from botocore.session import Session

SESSION_SECONDS = 3600
REFRESH_SECONDS = 300  # a session is replaced this long before it ends
MOST_SESSIONS = 1000  # kept at once, so that a large fleet takes no more memory than a small one
SESSION_NAME = "suture"


class AwsKeyring:
    """The credentials of one source. Role sessions are kept for their life and shared."""

    def __init__(self, source: AwsSource, api: AwsApi) -> None:
        self._source = source
        self._api = api
        self._hub = _hub_provider(source.credentials)
        self._sessions: OrderedDict[str, AwsCredentials] = OrderedDict()  # the newest last
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def hub(self) -> AwsCredentials:
        """Suture's own identity. Raises BadInput for an unset variable, AccessRefused for none."""
        return replace(await self._hub.credentials(), account=hub_account(self._source))

    async def assume(self, account: str, role: str) -> AwsCredentials:
        """A session of ``role`` in ``account``, good for five minutes more at the least."""
        arn = self._source.role_arn(account, role)
        lock = self._locks.setdefault(arn, asyncio.Lock())  # gone when nobody waits for it
        async with lock:
            known = self._sessions.get(arn)
            if known is None or known.expires - time.time() < REFRESH_SECONDS:
                self._sessions[arn] = known = await self._ask_sts(account, arn)
                self._sessions.move_to_end(arn)
                if len(self._sessions) > MOST_SESSIONS:
                    self._sessions.popitem(last=False)
        return known

    async def _ask_sts(self, account: str, arn: str) -> AwsCredentials:
        answer = await self._api.call(
            "sts",
            "AssumeRole",
            {
                "RoleArn": arn,
                "RoleSessionName": SESSION_NAME,
                "ExternalId": self._source.external_id,
                "DurationSeconds": SESSION_SECONDS,
            },
            region=self._source.regions[0],
            credentials=await self.hub(),
        )
        session = answer["Credentials"]
        return AwsCredentials(
            access_key=session["AccessKeyId"],
            secret_key=session["SecretAccessKey"],
            token=session["SessionToken"],
            expires=session["Expiration"].timestamp(),
            account=account,
        )


def hub_account(source: AwsSource) -> str:
    """Whose rate budgets the hub's own calls draw on: its account number is not known here."""
    return f"hub of {source.name}"


class _Provider(Protocol):
    async def credentials(self) -> AwsCredentials: ...


def _hub_provider(wanted: HubCredentials | None) -> _Provider:
    if wanted is not None and wanted.access_key_id_env:
        return _FromEnvironment(wanted.access_key_id_env, wanted.secret_access_key_env)
    return _FromChain(wanted.profile if wanted is not None else "")


class _FromEnvironment:
    """Two variables that the inventory names."""

    def __init__(self, access_key_id_env: str, secret_access_key_env: str) -> None:
        self._access_key_id_env = access_key_id_env
        self._secret_access_key_env = secret_access_key_env

    async def credentials(self) -> AwsCredentials:
        return AwsCredentials(
            environment(self._access_key_id_env), environment(self._secret_access_key_env)
        )


class _FromChain:
    """The SDK's own chain: variables, profiles, SSO, container and instance roles."""

    def __init__(self, profile: str) -> None:
        self._profile = profile or None
        self._session: Session | None = None
        self._lock = threading.Lock()

    async def credentials(self) -> AwsCredentials:
        # In a thread: the chain may read files, run programs or ask the metadata service.
        return await asyncio.to_thread(self._resolve)

    def _resolve(self) -> AwsCredentials:
        from botocore.session import Session

        def find() -> Any:
            with self._lock:
                if self._session is None:
                    self._session = Session(profile=self._profile)
                return self._session.get_credentials()

        return keys_found(find, hint=", or name credentials in the inventory")


def keys_found(find: Callable[[], Any], *, hint: str = "") -> AwsCredentials:
    """The keys that an SDK's chain finds. Raises AccessRefused, with what to set, for none."""
    try:
        found = find()
        keys = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError as error:
        raise AccessRefused(f"no AWS credentials: {error}") from None
    if keys is None or not keys.access_key or not keys.secret_key:
        raise AccessRefused(
            "the SDK's own chain finds no AWS credentials: set AWS_PROFILE or the "
            f"AWS_ACCESS_KEY_ID pair{hint}"
        )
    return AwsCredentials(keys.access_key, keys.secret_key, keys.token)


def environment(name: str) -> str:
    """The value of a variable that the inventory names."""
    value = os.environ.get(name, "")
    if not value:
        raise BadInput(name, "this environment variable is not set.", "The inventory names it.")
    return value
