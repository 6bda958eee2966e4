"""The words of the domain: accounts, resources, rules, steps, observations, findings. Pure values.

Nothing here talks to a cloud, a database or Prefect.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import orjson

from tasks.errors import MissingData

T = TypeVar("T")

type_json = Any  # whatever json.loads can give


class Cloud(StrEnum):
    AWS = "aws"
    AZURE = "azure"


class Severity(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for critical, rising as it matters less: sort by it."""
        return list(Severity).index(self)


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A rule's answer when it cannot tell. Falsy on purpose: unknown is never taken for a pass."""

    reason: str

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Account:
    """One AWS account or one Azure subscription, as the inventory or the organization names it.

    ``id`` is the 12-digit account number or the lower-case subscription UUID. ``source`` is the
    name of the inventory entry it came from. ``status`` is the cloud's own word in lower case
    ("active", "suspended", "enabled", "disabled", ...).
    """

    cloud: Cloud
    id: str
    name: str = ""
    source: str = ""
    status: str = "active"
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def scannable(self) -> bool:
        """Suspended, closed and disabled accounts answer no reads."""
        return self.status in {"active", "enabled", "pastdue", "warned"}


class Config(Mapping[str, Any]):
    """A resource's configuration. A part that was not read raises MissingData, not KeyError.

    ``gaps`` maps the names of parts that could not be read to the reason.
    """

    __slots__ = ("_derived", "_parts", "gaps")

    def __init__(self, parts: Mapping[str, Any], gaps: Mapping[str, str] | None = None) -> None:
        self._parts = dict(parts)
        self.gaps: dict[str, str] = dict(gaps or {})
        self._derived: dict[Callable[[Config], Any], Any] = {}

    def derived(self, work_out: Callable[[Config], T]) -> T:
        """What ``work_out`` makes of this configuration, worked out once for all rules that ask."""
        if work_out not in self._derived:
            self._derived[work_out] = work_out(self)
        found: T = self._derived[work_out]
        return found

    def __getitem__(self, part: str) -> Any:
        if part in self.gaps:
            raise MissingData(part, self.gaps[part])
        if part not in self._parts:
            raise MissingData(part)
        return self._parts[part]

    def get(self, part: str, default: Any = None) -> Any:
        """The part, or ``default`` where the cloud leaves it out. A gap still raises."""
        if part in self.gaps:
            raise MissingData(part, self.gaps[part])
        return self._parts.get(part, default)

    def __contains__(self, part: object) -> bool:
        return part in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return NotImplemented
        return self._parts == other._parts and self.gaps == other.gaps

    def __hash__(self) -> int:
        return hash(canonical_json(self._parts))

    def __repr__(self) -> str:
        return f"Config({self._parts!r}, gaps={self.gaps!r})"

    def as_dict(self) -> dict[str, Any]:
        return dict(self._parts)

    def without(self, gaps: Mapping[str, str]) -> Config:
        """The same without some parts, each with the reason why it does not count as read."""
        kept = {name: part for name, part in self._parts.items() if name not in gaps}
        return Config(kept, {**gaps, **self.gaps})


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as the cloud described it.

    ``id`` is the ARN (AWS) or the ARM resource id in lower case (Azure). ``region`` is "global" for
    what has none. ``kind`` is "{cloud}.{service}.{resource}". ``config`` holds the parts that rules
    read, in the API's own spelling. ``etag`` tells this very version of it from another with the
    same configuration, where the cloud does: ARM's and CloudFront's ETag, the id of GuardDuty's
    detector. ``reads``: where not all parts of it were asked for, the permissions of those that
    were; None where all were.
    """

    cloud: Cloud
    account: str
    region: str
    kind: str
    id: str
    name: str
    config: Config
    tags: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""
    reads: frozenset[str] | None = field(default=None, compare=False)

    def shows(self, rule: Rule) -> bool:
        """Whether all that ``rule`` reads was asked for."""
        return self.reads is None or self.reads.issuperset(rule.reads)

    @property
    def fingerprint(self) -> str:
        """sha256 of the configuration: equal means nothing a rule or a fix reads has changed."""
        return self.texts().fingerprint

    def digest(self, edition: str) -> str:
        """sha256 of all that is kept of it but the ETag, and of ``edition``.

        ``edition`` names the rules that judge it: other rules, another digest. Equal means that
        the same rules said the same of it, so that nothing needs to be written.
        """
        return self.texts().digest(edition)

    def texts(self) -> ResourceTexts:
        """Its configuration, gaps and tags as canonical JSON: once, for all that is made of it."""
        return ResourceTexts(
            self,
            config=canonical_json(self.config.as_dict()),
            gaps=canonical_json(self.config.gaps),
            tags=canonical_json(dict(self.tags)),
        )


@dataclass(frozen=True, slots=True)
class ResourceTexts:
    """A resource's parts as canonical JSON, and the hashes taken of them."""

    resource: Resource
    config: str
    gaps: str
    tags: str

    @property
    def fingerprint(self) -> str:
        return sha256(f"[{canonical_json(self.resource.id)},{self.config},{self.gaps}]")

    def digest(self, edition: str, fingerprint: str = "") -> str:
        """``fingerprint`` is its own where the caller has it already."""
        one = self.resource
        rest = canonical_json([one.name, one.region, one.kind, edition])
        return sha256(f"[{self.tags},{rest},{fingerprint or self.fingerprint}]")


@dataclass(frozen=True, slots=True)
class Call:
    """One write to a cloud's API, as data.

    AWS: ``service`` is botocore's name ("ec2"), ``operation`` the API's
    ("RevokeSecurityGroupIngress"), ``params`` its parameters. Azure: ``service`` is the
    api-version, ``operation`` the HTTP method ("PUT", "PATCH", "DELETE"), ``target`` the ARM id
    written to, ``params`` the JSON body.
    """

    cloud: Cloud
    service: str
    operation: str
    params: Mapping[str, Any]
    target: str = ""


def made(name: str) -> str:
    """Stands in a call's parameters for what nobody knows before a cloud has made it.

    It is what the session's last call answered under ``name``: the id of what it made, or the ETag
    of what it changed. A session that has made no call yet takes the resource's own ``etag``.
    """
    return f"{{made:{name}}}"


@dataclass(frozen=True, slots=True)
class Change:
    """One field that a step changes, for people: ``before`` and ``after`` as they would read it."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Step:
    """One write of a fix and the writes that take it back.

    ``action`` is the permission it needs: an IAM action or an Azure operation. ``undo`` restores
    exactly what was there, in order.
    """

    action: str
    call: Call
    undo: tuple[Call, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Input:
    """A value an approver may give a fix.

    ``kind`` is "cidrs" (comma-separated networks, empty allowed unless required), "text" or
    "number". ``label`` is the question as the form asks it.
    """

    name: str
    kind: str
    label: str
    required: bool = False
    default: str = ""


Predicate = Callable[[Resource], "bool | Unknown"]
Fix = Callable[[Resource, Mapping[str, Any]], tuple[Step, ...]]


def as_it_was(resource: Resource) -> Resource:
    """What an undo leaves behind, as a rule: exactly what was there."""
    return resource


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One row of the rule table: what is wrong, and what makes it right.

    ``id`` is {cloud}_{service}_{resource}_{good state}, so that PASS reads true. ``passes`` may
    raise MissingData; ``judge`` turns that into unknown. ``reads`` and ``writes`` are permissions,
    from which roles and session policies are generated; ``writes`` covers the undo too. ``events``
    are control-plane operations that may change the verdict. ``undone`` is the resource as the undo
    leaves it, where a cloud has no way all the way back. ``settles`` is how many seconds the cloud
    may take to show a change that it has accepted. ``proved`` says that the emulated cloud can do
    what the row needs, so that it is proved there in full.
    """

    id: str
    kind: str
    severity: Severity
    title: str
    passes: Predicate
    fix: Fix | None
    inputs: tuple[Input, ...] = ()
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    events: tuple[str, ...]
    aka: tuple[str, ...] = ()
    undone: Callable[[Resource], Resource] = as_it_was
    proved: bool = True
    settles: float = 20.0
    guide: str

    @property
    def cloud(self) -> Cloud:
        return Cloud(self.kind.partition(".")[0])

    @property
    def service(self) -> str:
        return self.kind.split(".")[1]

    @property
    def controls(self) -> tuple[str, ...]:
        """The benchmark controls it answers, such as cis-aws-6.0:6.3."""
        return tuple(name for name in self.aka if name.startswith("cis-"))

    def judge(self, resource: Resource) -> tuple[Verdict, str]:
        """The verdict on one resource and, for unknown, the reason."""
        try:
            answer = self.passes(resource)
        except MissingData as missing:
            return Verdict.UNKNOWN, str(missing)
        if isinstance(answer, Unknown):
            return Verdict.UNKNOWN, answer.reason
        return (Verdict.PASS if answer else Verdict.FAIL), ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one rule said of one resource in one scan."""

    finding_id: str
    account: str
    cloud: Cloud
    region: str
    rule: str
    severity: Severity
    kind: str
    resource: str
    verdict: Verdict
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Covered:
    """One (region, kind) that a scan read to the end, or why it could not.

    ``region`` is "global" for a kind that one list answers for every region at once (S3 buckets,
    everything on Azure, what has no region): it covers the kind's resources wherever they were.
    """

    region: str
    kind: str
    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AccountScan:
    """All that one scan learned of one account.

    ``failed`` is empty for an account that was scanned, else the reason in words; then
    ``resources`` and ``observations`` are empty and its old findings stay as they are. ``lag`` is
    by how many seconds what was read may be older than its reading: of a cloud's own inventory,
    which follows its resources after a while.
    """

    account: Account
    resources: Sequence[Resource] = ()
    observations: Sequence[Observation] = ()
    coverage: Sequence[Covered] = ()
    failed: str = ""
    lag: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding as the warehouse keeps it: one rule failing on one resource, over time."""

    id: str
    cloud: Cloud
    account: str
    region: str
    rule: str
    severity: Severity
    kind: str
    resource: str
    status: str = "open"
    tags: Mapping[str, str] = field(default_factory=dict)
    account_tags: Mapping[str, str] = field(default_factory=dict)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """One text per value, whatever the order of keys: what hashes are taken of.

    orjson writes it where it writes the same as ``json.dumps``, many times faster.
    """
    try:
        text = orjson.dumps(value, default=_moment, option=ORJSON)
    except TypeError:  # keys that are no text, big numbers, half characters, other types
        pass
    else:
        if text.isascii() and not _differs(text):
            return text.decode("ascii")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


ORJSON = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
)
ZEROS = bytes.maketrans(b":[0123456789", b",,0000000000")


def _differs(text: bytes) -> bool:
    """Whether json may write it differently: a float, a NaN (null to orjson), a DEL.

    Quick instead of exact (a regular expression takes longer than all the rest): text that only
    looks like a float takes the slow way too, which is right as well.
    """
    zeros = text.translate(ZEROS, b"-")  # of a float, ",00.0" or ",0e00" is left
    return (
        b",." in zeros.translate(None, b"0")
        or b",0e" in zeros
        or b"null" in text
        or b"\x7f" in text
        or text[0] in b"-0123456789"
    )


def _moment(value: object) -> str:
    """What botocore's parsers give beside JSON's types. TypeError leaves the rest to json."""
    if type(value) is datetime:
        return str(value)
    raise TypeError


def in_order(value: Any) -> Any:
    """``value`` with every list of objects sorted, at any depth.

    Clouds give such lists as sets, in an order that changes when one is taken out and put back.
    Sorted, equal configurations have equal fingerprints.
    """
    if isinstance(value, dict):
        return {key: in_order(part) for key, part in value.items()}
    if isinstance(value, list):
        parts = [in_order(part) for part in value]
        if len(parts) > 1 and all(isinstance(part, dict) for part in parts):
            parts.sort(key=canonical_json)
        return parts
    return value


def finding_id(
    cloud: Cloud, account: str, region: str, rule: str, resource: str, detail: str = ""
) -> str:
    """sha256(cloud|account|region|rule|canonical resource|detail), in hex."""
    return sha256("|".join((cloud, account, region, rule, resource, detail)))


def observe(rule: Rule, resource: Resource) -> Observation:
    """Judge one resource by one rule."""
    verdict, reason = rule.judge(resource)
    return Observation(
        finding_id=finding_id(
            resource.cloud, resource.account, resource.region, rule.id, resource.id
        ),
        account=resource.account,
        cloud=resource.cloud,
        region=resource.region,
        rule=rule.id,
        severity=rule.severity,
        kind=rule.kind,
        resource=resource.id,
        verdict=verdict,
        reason=reason,
    )
