"""The gate in front of moto: who calls, may they, and only then the call itself. A WSGI app."""

from __future__ import annotations

import hmac
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from threading import Event, RLock
from typing import Any

from moto.core.parse import RequestParserError
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.utils import bucket_policy_is_public

from deployments.local.aws import calls, gaps_infrastructure, identities, queues, sts
from deployments.local.aws.calls import Call, Environ, Need
from deployments.local.aws.cloudformation import Stacks
from deployments.local.aws.corrections_data import blocks_public_policies
from deployments.local.aws.errors import Refusal, Response, error_in, render
from deployments.local.aws.event_bridge import EventBridge
from deployments.local.aws.gaps import Gaps
from deployments.local.aws.identities import Caller, Identities
from deployments.local.aws.listener import HUNG_UP, Hangup
from deployments.local.aws.policy import (
    MalformedPolicy,
    Policy,
    Request,
    decide,
    parse_policy,
    parse_resource_policy,
    parse_trust_policy,
)
from deployments.local.aws.propagation import Trusts
from deployments.local.aws.shortcuts import answer_of
from deployments.local.aws.sigv4 import UNSIGNED, signature_of
from deployments.local.aws.trail import CLOUDFORMATION, Trail, is_write

SKEW = timedelta(minutes=15)
HANG_SECONDS = 60.0
LOOK_SECONDS = 0.2  # how often a call that waits looks whether anybody still waits for it
log = logging.getLogger(__name__)
gaps_infrastructure.install()


class Gate:
    """``accounts`` are those whose keys open this gate. ``faults`` maps an account to "throttled"
    or "timeout": what befalls its every call.

    ``clock_offset`` moves the time that sessions and conditions see. The check of a signature's
    age stays on the wall clock, because clients sign by theirs. ``propagation`` is how many seconds
    STS goes on by a trust policy that has been changed. ``packed_bytes`` is the room that a session
    has for its policies once they are packed. ``bridge`` is told of every write.
    """

    def __init__(
        self,
        accounts: frozenset[str],
        *,
        latency: float = 0.0,
        propagation: float = 0.0,
        bridge: EventBridge | None = None,
    ) -> None:
        self.latency = latency
        self.faults: dict[str, str] = {}
        self.clock_offset = timedelta()
        self.packed_bytes = sts.PACKED_BYTES
        self.identities = Identities(accounts)
        self._stacks = Stacks()
        self._gaps = Gaps()
        self.trusts = Trusts(timedelta(seconds=propagation))
        self._dispatcher = DomainDispatcherApplication(create_backend_app)
        self._moto: dict[str, Any] = {}  # service -> moto's application for it
        self._locks: defaultdict[str, RLock] = defaultdict(RLock)
        self._stopping = Event()
        self._trail = Trail(bridge.publish) if bridge else None

    def stop(self) -> None:
        """Let every call that hangs or waits go."""
        self._stopping.set()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_offset

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.latency:
            self._stopping.wait(self.latency)
        call = calls.read_call(environ)
        try:
            status, headers, body = self._answer(call)
        except Refusal as refusal:
            status, headers, body = render(refusal, call.protocol, call.namespace)
        except Hangup:
            raise
        except NotImplementedError:  # moto knows the operation and does nothing for it
            refusal = Refusal("unknown action")
            status, headers, body = render(refusal, call.protocol, call.namespace)
        except Exception:
            log.exception("the emulator failed on a call to %s", call.service)
            status, headers, body = render(Refusal("failure"), call.protocol, call.namespace)
        start_response(f"{status} {'OK' if status < 400 else 'Error'}", headers)
        return [body]

    def _answer(self, call: Call) -> Response:
        caller = self._authenticate(call)
        self._befall(caller.account)
        name, uri = calls.operation(call)
        context = self._context(call, caller)
        if call.service == "sts":
            return self._sts(call, caller, name, context)
        if (call.service, name) == ("sqs", "ReceiveMessage"):
            return self._receive(call, caller, uri, context)
        if self._trail is None or not is_write(call.service, call.model, name):
            return self._answer_in_turn(call, caller, name, uri, context)
        try:
            answer = self._answer_in_turn(call, caller, name, uri, context)
        except Refusal as refusal:
            told = render(refusal, call.protocol, call.namespace)
            self._tell(call, caller, name, uri, told)
            raise
        self._tell(call, caller, name, uri, answer)
        return answer

    def _tell(
        self,
        call: Call,
        caller: Caller,
        name: str,
        uri: Mapping[str, str],
        answer: Response,
        by: str = "",
    ) -> None:
        """Tell the trail of a write. A call that its service could not read is told of all the same
        in reality, without its parameters; here it is not told of.
        """
        assert self._trail is not None
        code, message = error_in(answer, call.protocol) if answer[0] >= 400 else ("", "")
        error = {"code": code, "message": message}
        try:
            self._trail.note(call, caller, name, uri, answer, self.now, **error, by=by)
        except (RequestParserError, ValueError, LookupError, TypeError):
            log.warning("no event was made of %s:%s", call.service, name, exc_info=True)

    def _receive(
        self,
        call: Call,
        caller: Caller,
        uri: Mapping[str, str],
        context: Mapping[str, tuple[str, ...]],
    ) -> Response:
        """Messages of a queue. While there are none the account's other calls are not kept waiting,
        as they would be by moto's own way of it; and who has hung up by then gets none, for nobody
        would see them until they are visible again.
        """
        with self._locks[caller.account]:
            needed = calls.needs(call, "ReceiveMessage", uri, caller.account)
            self._authorize(caller, needed, context, None)
        at_once, queue, seconds = queues.without_waiting(call, caller.account)
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            last = queue is None or left <= 0
            if last or queues.wait_for_message(queue, min(left, LOOK_SECONDS)):
                with self._locks[caller.account]:
                    if call.environ[HUNG_UP]():
                        raise Hangup
                    answer = self._forward(at_once, caller.account)
                if last or not queues.is_empty(answer):
                    return answer
            elif self._stopping.is_set() or call.environ[HUNG_UP]():
                raise Hangup

    def _answer_in_turn(
        self,
        call: Call,
        caller: Caller,
        name: str,
        uri: Mapping[str, str],
        context: Mapping[str, tuple[str, ...]],
    ) -> Response:
        with self._locks[caller.account]:
            needed = calls.needs(call, name, uri, caller.account)
            bucket = calls.bucket_of(uri) if call.model == "s3" else None
            self._authorize(caller, needed, context, bucket)
            if call.service == "cloudformation":
                return self._stacks.answer(
                    call, name, caller.account, self._iam_as(caller, call, context)
                )
            _check_documents(call, name, bucket)
            if bucket is not None:
                _check_bucket(call, name, bucket)
            if self._gaps.fills(call, name):
                return self._gaps.answer(call, name, uri, caller.account)
            before = _trust_before(call, name, caller.account)
            answer = self._forward(call, caller.account)
            if before and answer[0] < 400:
                self.trusts.changed(*before, self.now)
            return answer

    def _iam_as(
        self, caller: Caller, call: Call, context: Mapping[str, tuple[str, ...]]
    ) -> Callable[[str, Mapping[str, Any]], Mapping[str, Any]]:
        """IAM's operations as CloudFormation calls them: with the permissions of its caller."""

        def iam(name: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
            made = calls.iam_call(call, name, params)
            self._authorize(caller, calls.needs(made, name, {}, caller.account), context, None)
            _check_documents(made, name, None)
            answer = self._forward(made, caller.account)
            if self._trail is not None and is_write(made.service, made.model, name):
                self._tell(made, caller, name, {}, answer, CLOUDFORMATION)
            return calls.iam_answer(name, answer)

        return iam

    def _sts(
        self, call: Call, caller: Caller, name: str, context: Mapping[str, tuple[str, ...]]
    ) -> Response:
        if name == "GetCallerIdentity":
            return sts.get_caller_identity(caller)
        if name == "AssumeRole":
            return sts.assume_role(
                caller,
                call.form(),
                context,
                self.identities,
                self.trusts,
                self.now,
                self.packed_bytes,
            )
        raise Refusal("unknown action", f"The action {name} is not emulated.")

    def _befall(self, account: str) -> None:
        fault = self.faults.get(account)
        if fault == "throttled":
            raise Refusal("throttled")
        if fault == "timeout":
            self._stopping.wait(HANG_SECONDS)
            raise Hangup

    # ------------------------------------------------------------ authentication

    def _authenticate(self, call: Call) -> Caller:
        authorization = call.authorization
        if authorization is None:
            raise Refusal("unsigned")
        credentials = self.identities.find(authorization.access_key)
        if credentials is None:
            raise Refusal("unknown key")
        if not hmac.compare_digest(
            call.headers.get("x-amz-security-token", "").encode(), credentials.token.encode()
        ):
            raise Refusal("bad token")
        self._check_signature(call, credentials.secret)
        if credentials.expires is not None and self.now >= credentials.expires:
            raise Refusal("expired")
        member = identities.organization_member(credentials.caller.account)
        if member and member[1] != "ACTIVE":
            raise Refusal("bad token")
        return credentials.caller

    def _check_signature(self, call: Call, secret: str) -> None:
        authorization, moment = call.authorization, calls.timestamp(call)
        assert authorization is not None
        if moment is None or authorization.date != f"{moment:%Y%m%d}":
            raise Refusal("bad signature")
        if abs(moment - datetime.now(UTC)) > SKEW:
            raise Refusal("skewed")
        if authorization.region not in calls.known_regions():
            raise Refusal("bad signature", "Credential should be scoped to a valid region.")
        claimed = call.headers.get("x-amz-content-sha256", call.payload_hash)
        if not _payload_is(claimed, call):
            raise Refusal(
                "XAmzContentSHA256Mismatch" if call.service == "s3" else "bad signature",
                "The provided 'x-amz-content-sha256' header does not match what was computed."
                if call.service == "s3"
                else "",
            )
        signed = set(authorization.signed_headers)
        sent = {name for name in call.headers if name.startswith("x-amz-")}
        expected = signature_of(
            authorization,
            secret,
            method=call.method,
            raw_path=call.raw_path,
            raw_query=call.environ["QUERY_STRING"],
            headers=call.headers,
            timestamp=call.headers["x-amz-date"],
            payload_hash=claimed,
        )
        whole = {"host", "x-amz-date"} <= signed and sent <= signed
        if not whole or not hmac.compare_digest(expected, authorization.signature):
            raise Refusal("bad signature")

    # ------------------------------------------------------------ authorization

    def _context(self, call: Call, caller: Caller) -> dict[str, tuple[str, ...]]:
        """The global condition keys of a request."""
        now = self.now
        context = {
            "aws:currenttime": (now.isoformat(),),
            "aws:epochtime": (str(int(now.timestamp())),),
            "aws:requestedregion": (call.region,),
            "aws:sourceip": (call.environ["REMOTE_ADDR"],),
            # The listener stands for an endpoint that real clients reach over TLS only.
            "aws:securetransport": ("true",),
            "aws:principalarn": (caller.principal_arn,),
            "aws:principalaccount": (caller.account,),
            "aws:principaltype": (caller.kind,),
            "aws:userid": (caller.unique_id,),
            "aws:useragent": (call.headers.get("user-agent", ""),),
            "ec2:region": (call.region,),
        }
        if caller.kind == "User":
            context["aws:username"] = (caller.name,)
        if caller.issued:
            context["aws:tokenissuetime"] = (caller.issued.isoformat(),)
            context["aws:multifactorauthpresent"] = ("false",)
        if member := identities.organization_member(caller.account):
            context["aws:principalorgid"] = (member[0],)
        return context

    def _authorize(
        self,
        caller: Caller,
        needed: Iterable[Need],
        context: Mapping[str, tuple[str, ...]],
        bucket: Any | None,
    ) -> None:
        try:
            mine, boundary = identities.identity_policies(caller), identities.boundary(caller)
        except MalformedPolicy:
            mine, boundary = [], ()
        own, same_account = _bucket_policy(bucket), True
        if bucket is not None:
            same_account = bucket.account_id == caller.account
        for need in needed:
            decision = decide(
                Request(need.action, need.resource, {**context, **need.context}, caller.names),
                mine,
                session=caller.session_policies,
                boundary=boundary,
                resource_policy=own,
                same_account=same_account,
            )
            if not decision.allowed:
                raise Refusal(
                    "denied",
                    f"User: {caller.arn} is not authorized to perform: {need.action} on resource: "
                    f"{need.resource} {decision.why}",
                )

    # ------------------------------------------------------------ moto

    def _forward(self, call: Call, account: str) -> Response:
        if call.environ["PATH_INFO"].startswith(("/moto-api", "/latest/")):
            # moto would take these for its own controls.
            raise Refusal("NoSuchBucket", "The specified bucket does not exist", status=404)
        environ = call.moto_environ(account)
        if call.model not in self._moto:  # moto would look the same thing up on every call
            try:
                self._moto[call.model] = self._dispatcher.get_application(environ)
            except AttributeError:  # how moto says that it has no such service
                raise Refusal("unknown action") from None
        return answer_of(self._moto[call.model], environ)


def _trust_before(call: Call, name: str, account: str) -> tuple[str, str] | None:
    """The ARN and the trust policy of a role whose trust policy is about to change."""
    if (call.service, name) != ("iam", "UpdateAssumeRolePolicy"):
        return None
    named = call.form().get("RoleName", "")
    roles = iam_backends[account]["aws"].get_roles()
    return next(
        ((one.arn, one.assume_role_policy_document) for one in roles if one.name == named), None
    )


def _payload_is(claimed: str, call: Call) -> bool:
    if claimed == UNSIGNED or claimed.startswith("STREAMING-"):
        return call.service == "s3"
    return hmac.compare_digest(claimed, call.payload_hash)


def _bucket_policy(bucket: Any | None) -> Policy | None:
    text = getattr(bucket, "policy", None)
    if not text:
        return None
    return parse_resource_policy(text.decode() if isinstance(text, bytes) else text)


# Calls that write a policy: (service, operation) -> (parameter, parser).
_DOCUMENTS = {
    ("iam", "CreateRole"): ("AssumeRolePolicyDocument", parse_trust_policy),
    ("iam", "UpdateAssumeRolePolicy"): ("PolicyDocument", parse_trust_policy),
    ("iam", "PutRolePolicy"): ("PolicyDocument", parse_policy),
    ("iam", "PutUserPolicy"): ("PolicyDocument", parse_policy),
    ("iam", "PutGroupPolicy"): ("PolicyDocument", parse_policy),
    ("iam", "CreatePolicy"): ("PolicyDocument", parse_policy),
    ("iam", "CreatePolicyVersion"): ("PolicyDocument", parse_policy),
}


def _check_documents(call: Call, name: str, bucket: Any | None) -> None:
    """No policy gets in that the gate could not read back."""
    if (call.service, name) in _DOCUMENTS:
        parameter, parse = _DOCUMENTS[call.service, name]
        try:
            parse(call.form().get(parameter, ""))
        except MalformedPolicy as problem:
            raise Refusal("MalformedPolicyDocument", str(problem)) from None
        _check_size(name, call.form().get(parameter, ""))
    if call.service == "s3" and name == "PutBucketPolicy" and bucket is not None:
        _check_bucket_policy(call.body, bucket)


# Characters, white space not counted. After "IAM and AWS STS quotas".
_LONGEST = {"CreatePolicy": 6_144, "CreatePolicyVersion": 6_144, "PutRolePolicy": 10_240}


def _check_size(name: str, document: str) -> None:
    longest = _LONGEST.get(name)
    if longest is not None and len("".join(document.split())) > longest:
        raise Refusal("LimitExceeded", f"Cannot exceed quota for PolicySize: {longest}", status=409)


def _check_bucket_policy(body: bytes, bucket: Any) -> None:
    try:
        policy = parse_resource_policy(body.decode())
    except (MalformedPolicy, UnicodeDecodeError) as problem:
        raise Refusal("MalformedPolicy", str(problem)) from None
    arn = f"arn:aws:s3:::{bucket.name}"
    resources = [resource for statement in policy for resource in statement.resources]
    if not all(resource == arn or resource.startswith(f"{arn}/") for resource in resources):
        raise Refusal("MalformedPolicy", "Policy has invalid resource")
    if blocks_public_policies(bucket) and bucket_policy_is_public(body):
        raise Refusal(
            "AccessDenied",
            "public policies are blocked by the BlockPublicPolicy block public access setting.",
            status=403,
        )


# S3 answers these for a bucket of any region.
_ANYWHERE = {"CreateBucket", "GetBucketLocation"}


def _check_bucket(call: Call, name: str, bucket: Any) -> None:
    expected = call.headers.get("x-amz-expected-bucket-owner")
    if expected and expected != bucket.account_id:
        raise Refusal("denied")
    if name in _ANYWHERE or call.region == bucket.region_name:
        return
    headers = {"x-amz-bucket-region": bucket.region_name}
    if name == "HeadBucket":
        raise Refusal("PermanentRedirect", status=301, headers=headers)
    raise Refusal(
        "AuthorizationHeaderMalformed",
        f"The authorization header is malformed; the region '{call.region}' is wrong; expecting "
        f"'{bucket.region_name}'",
        details={"Region": bucket.region_name},
        headers=headers,
    )
