"""Policies: which findings are closed how. Pure; the first policy that matches wins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.approvers import Approvals, Terms, terms
from tasks.errors import BadInput, BadPolicy
from tasks.model import Finding, Severity
from tasks.yaml_file import Section, parse_yaml, read_text


class Mode(StrEnum):
    """How a finding is closed: by a person with the guide, by approval, or by the policy."""

    GUIDED = "guided"
    ASSISTED = "assisted"
    AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy.

    Every condition that is given must hold; a list holds when one of its entries does. ``rules``,
    ``accounts`` and the values of ``tags`` may use ``*`` and ``?``. ``tags`` look at the resource's
    tags and then at its account's. ``values`` are preset inputs, as an approver would type them.
    ``expires`` is how long an approval waits. ``most_changes`` caps the findings that one run may
    change, ``most_runs`` the approvals that wait at the same time under this policy, or when it is
    automatic, the runs that one triage starts: the next triage takes the next accounts.
    ``warm_gate`` says that an automatic fix may use a gate that the customer keeps open ahead.
    ``most_changes_per_hour`` caps what all of its runs may begin to change within any hour, on all
    machines together; None: no such cap.
    ``approvals`` is who may approve, also when a person asks for the change by hand.
    ``escalates_after``: a finding that an automatic policy has closed so often within
    ``escalates_within`` is not closed by it again without asking: somebody wants it open.
    """

    name: str
    mode: Mode
    rules: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()
    clouds: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    expires: timedelta = timedelta(hours=24)
    most_changes: int = 50
    most_runs: int = 20
    warm_gate: bool = False
    most_changes_per_hour: int | None = None
    approvals: Approvals = field(default_factory=Approvals)
    escalates_after: int = 3
    escalates_within: timedelta = timedelta(hours=24)

    def for_finding(self, closings: Sequence[datetime], now: datetime) -> Policy:
        """This policy for a finding that was closed automatically at these times: itself, or where
        that has been tried enough, one of the same name that asks an approver.
        """
        if self.mode is not Mode.AUTOMATIC:
            return self
        lately = [one for one in closings if one > now - self.escalates_within]
        if len(lately) < self.escalates_after:
            return self
        return replace(self, mode=Mode.ASSISTED, warm_gate=False)

    def mismatch(self, finding: Finding) -> str:
        """Why the finding does not meet this policy, in words; empty when it does."""
        checks = (
            ("rule", finding.rule, self.rules),
            ("severity", finding.severity, self.severities),
            ("cloud", finding.cloud, self.clouds),
            ("account", finding.account, self.accounts),
        )
        for name, value, wanted in checks:
            if wanted and not any(fnmatchcase(value, pattern) for pattern in wanted):
                return f"its {name} is {value}, not {' or '.join(wanted)}"
        for key, pattern in self.tags.items():
            present = finding.tags.get(key, finding.account_tags.get(key))
            if present is None:
                return f"it has no tag {key}"
            if not fnmatchcase(present, pattern):
                return f"its tag {key} is not {pattern}"
        return ""


# What happens to a finding that no policy matches: people are shown the guide, nothing else.
BY_HAND = Policy(name="no policy", mode=Mode.GUIDED)

# What a person asks for by hand, in the UI or on the command line: an approval, nothing preset.
ON_REQUEST = Policy(name="on request", mode=Mode.ASSISTED, most_changes=1000, most_runs=1000)


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy a finding meets, and why each one before it was passed over."""

    policy: Policy
    passed_over: tuple[tuple[str, str], ...]

    @property
    def why(self) -> str:
        """The whole reasoning as one sentence for each policy looked at."""
        skipped = [f"{name}: no, {reason}." for name, reason in self.passed_over]
        if self.policy is BY_HAND:
            return " ".join([*skipped, "No policy matches, so it is left to people and the guide."])
        return " ".join([*skipped, f"{self.policy.name}: every condition holds."])


@dataclass(frozen=True, slots=True)
class Group:
    """What one remediation run carries: findings of one account under one policy."""

    policy: Policy
    cloud: str
    account: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """All groups to be run, and the findings that wait for the next time because of a cap."""

    groups: tuple[Group, ...]
    guided: tuple[Finding, ...]
    capped: tuple[Finding, ...]

    @property
    def automatic(self) -> tuple[Group, ...]:
        return tuple(g for g in self.groups if g.policy.mode is Mode.AUTOMATIC)

    @property
    def assisted(self) -> tuple[Group, ...]:
        return tuple(g for g in self.groups if g.policy.mode is Mode.ASSISTED)


def decide(finding: Finding, policies: Sequence[Policy]) -> Decision:
    """The first policy that the finding meets."""
    passed_over: list[tuple[str, str]] = []
    for policy in policies:
        reason = policy.mismatch(finding)
        if not reason:
            return Decision(policy, tuple(passed_over))
        passed_over.append((policy.name, reason))
    return Decision(BY_HAND, tuple(passed_over))


def escalated(policy: Policy, closings: Mapping[str, Sequence[datetime]]) -> Policy:
    """The policy for a run that carries findings closed automatically at these times, by their ids.

    Where one of them has come back too often the whole run asks an approver.
    """
    now = datetime.now(UTC)
    for times in closings.values():
        policy = policy.for_finding(times, now)
    return policy


def check_automatic(
    policy: Policy, policies: Sequence[Policy], findings: Sequence[Finding], *, already: int = 0
) -> None:
    """Whether an automatic policy closes these findings by itself, and all of them in one run that
    has ``already`` so many.

    Naming it is no way around an approval. Raises BadInput; says nothing of other modes.
    """
    if policy.mode is not Mode.AUTOMATIC:
        return
    instead = "Leave the policy empty to ask for an approval."
    for finding in findings:
        if decide(finding, policies).policy.name != policy.name:
            why = policy.mismatch(finding) or "another policy before it does"
            problem = f"{policy.name} does not close {finding.id[:12]} by itself: {why}."
            raise BadInput("policy", problem, instead)
    if already + len(findings) > policy.most_changes:
        problem = f"{policy.name} changes at most {policy.most_changes} in one run."
        raise BadInput("policy", problem, instead)


def terms_for(
    policy: Policy,
    policies: Sequence[Policy],
    findings: Sequence[Finding],
    requesters: Iterable[str],
) -> Terms:
    """What a run under ``policy`` asks of its approvers.

    What the policies say that the findings meet counts as well: to ask by hand, or under another
    name, is no way around the second person.
    """
    asked = [(policy.approvals, finding.severity) for finding in findings]
    asked += [(decide(one, policies).policy.approvals, one.severity) for one in findings]
    return terms(asked, requesters)


def named(policies: Sequence[Policy], name: str) -> Policy:
    """The policy of that name; an empty name means a person's own request.

    Raises BadPolicy when there is none.
    """
    if name in ("", ON_REQUEST.name):
        return ON_REQUEST
    for policy in policies:
        if policy.name == name:
            return policy
    known = ", ".join(policy.name for policy in policies) or "none"
    raise BadPolicy("policy", f"{name} does not exist.", f"Policies in the file: {known}.")


def assign(
    findings: Iterable[Finding],
    policies: Sequence[Policy],
    *,
    waiting: Mapping[str, int] | None = None,
    closings: Mapping[str, Sequence[datetime]] | None = None,
    now: datetime | None = None,
) -> Assignment:
    """Sort findings into runs: by policy, then by account, the worst first, within the caps.

    ``waiting`` counts the approvals that wait already under each policy's name. ``closings`` are
    the times at which findings, by their ids, were closed automatically until ``now``.
    """
    waiting = dict(waiting or {})
    gathered: dict[tuple[str, Mode, str, str], list[Finding]] = {}
    chosen: dict[tuple[str, Mode], Policy] = {}
    guided: list[Finding] = []
    moment = now or datetime.now(UTC)
    for finding in sorted(findings, key=lambda f: (f.severity.rank, f.account, f.id)):
        policy = decide(finding, policies).policy
        policy = policy.for_finding((closings or {}).get(finding.id, ()), moment)
        if policy.mode is Mode.GUIDED:
            guided.append(finding)
            continue
        chosen[policy.name, policy.mode] = policy
        place = (policy.name, policy.mode, finding.cloud.value, finding.account)
        gathered.setdefault(place, []).append(finding)
    groups: list[Group] = []
    capped: list[Finding] = []
    for (name, mode, cloud, account), members in gathered.items():
        policy = chosen[name, mode]
        if waiting.get(name, 0) >= policy.most_runs:
            capped += members
            continue
        waiting[name] = waiting.get(name, 0) + 1
        groups.append(Group(policy, cloud, account, tuple(members[: policy.most_changes])))
        capped += members[policy.most_changes :]
    return Assignment(tuple(groups), tuple(guided), tuple(capped))


# --- the file ----------------------------------------------------------------------------------

_KEYS = (
    *("name", "match", "mode", "values", "expires", "approvals"),
    *("most_changes", "most_runs", "most_changes_per_hour", "warm_gate", "escalate"),
)
_LIMIT_KEYS = ("changes_per_hour",)
MOST_PER_HOUR = 100_000
LONGEST = timedelta(days=30)  # of any duration in the file
_MATCH_KEYS = ("rule", "severity", "cloud", "account", "tags")
_APPROVALS_KEYS = ("two_from", "not_requester", "approvers", "verified")


def load_policies(path: Path) -> tuple[Policy, ...]:
    """The policies of a YAML file. Raises BadPolicy with the line and the fix."""
    return _read(read_text(path, BadPolicy), str(path))[0]


def parse_policies(text: str, file: str = "policies.yaml") -> tuple[Policy, ...]:
    """The policies of YAML ``text``. Raises BadPolicy with the line and the fix."""
    return _policies(parse_yaml(text, file, BadPolicy))


def load_caps(path: Path) -> dict[str, int]:
    """The changes that may begin within any hour, by the name of the policy.

    Under the empty name stands the cap of the whole file: ``limits: {changes_per_hour: N}``. What
    is not capped is not there. Raises BadPolicy with the line and the fix.
    """
    return dict(_read(read_text(path, BadPolicy), str(path))[1])


@lru_cache(maxsize=8)
def _read(text: str, file: str) -> tuple[tuple[Policy, ...], Mapping[str, int]]:
    """Policies and caps, once for each text: they are asked for before every change."""
    top = parse_yaml(text, file, BadPolicy)
    return _policies(top), _caps(top)


def parse_caps(text: str, file: str = "policies.yaml") -> dict[str, int]:
    """The caps of YAML ``text``, as ``load_caps``."""
    return _caps(parse_yaml(text, file, BadPolicy))


def _caps(top: Section) -> dict[str, int]:
    found = {
        policy.name: policy.most_changes_per_hour
        for policy in _policies(top)
        if policy.most_changes_per_hour is not None
    }
    limits = top.section("limits")
    whole = _per_hour(limits, "changes_per_hour") if limits else None
    return found if whole is None else {"": whole, **found}


def _per_hour(section: Section, key: str) -> int | None:
    """A cap that is there without a number is no cap left out: it is refused."""
    if key not in section.data:
        return None
    return section.number(key, 0, least=1, most=MOST_PER_HOUR)


def _policies(top: Section) -> tuple[Policy, ...]:
    top.only(("suture", "limits", "policies"))
    if "limits" in top.data:
        _limits(top)
    if top.data.get("suture") != 1:
        raise top.bad("suture", "is not 1.", "Begin the file with `suture: 1`.")
    policies: list[Policy] = []
    for section in top.sections("policies"):
        policy = _policy(section)
        if policy.name in {BY_HAND.name, ON_REQUEST.name, *(p.name for p in policies)}:
            raise section.bad("name", f"{policy.name} is taken.", "Names must differ.")
        policies.append(policy)
    return tuple(policies)


def _limits(top: Section) -> None:
    limits = top.section("limits")
    if limits is None or "changes_per_hour" not in limits.data:
        raise top.bad("limits", "says nothing.", "Write `limits: {changes_per_hour: 200}`.")
    limits.only(_LIMIT_KEYS)
    _per_hour(limits, "changes_per_hour")


def _policy(section: Section) -> Policy:
    section.only(_KEYS)
    mode = section.text("mode")
    if mode not in list(Mode):
        raise section.bad("mode", f"is {mode}.", f"Choose one of: {', '.join(Mode)}.")
    match = section.section("match")
    if match is None:
        raise section.bad("match", "is missing.", "Say what it matches, such as `rule: '*'`.")
    match.only(_MATCH_KEYS)
    if not match.data:
        raise section.bad("match", "is empty.", "To match everything write `rule: '*'`.")
    return Policy(
        name=section.text("name"),
        mode=Mode(mode),
        rules=match.texts("rule"),
        severities=tuple(_choice(match, "severity", Severity)),
        clouds=tuple(_one_of(match, "cloud", ("aws", "azure"))),
        accounts=match.texts("account"),
        tags=_texts_by_key(match.section("tags")),
        values=_texts_by_key(section.section("values")),
        expires=_duration(section, "expires", "24h"),
        most_changes=section.number("most_changes", 50, least=1, most=1000),
        most_runs=section.number("most_runs", 20, least=1, most=1000),
        warm_gate=_warm_gate(section, mode),
        most_changes_per_hour=_per_hour(section, "most_changes_per_hour"),
        approvals=_approvals(section, Mode(mode)),
        **_escalation(section, Mode(mode)),
    )


def _escalation(policy: Section, mode: Mode) -> dict[str, Any]:
    section = policy.section("escalate")
    if section is None:
        return {}
    if mode is not Mode.AUTOMATIC:
        raise policy.bad("escalate", f"stands beside mode: {mode}.", "It is for automatic ones.")
    section.only(("after", "within"))
    if not section.data:
        raise policy.bad("escalate", "is empty.", "Write `escalate: {after: 3, within: 24h}`.")
    return {
        "escalates_after": section.number("after", 3, least=1, most=1000),
        "escalates_within": _duration(section, "within", "24h"),
    }


def _warm_gate(section: Section, mode: str) -> bool:
    value = section.data.get("warm_gate", False)
    if not isinstance(value, bool):
        raise section.bad("warm_gate", "is neither true nor false.", "Write true or false.")
    if value and mode != Mode.AUTOMATIC:
        raise section.bad(
            "warm_gate", f"stands beside mode: {mode}.", "Only automatic policies can use one."
        )
    return value


def _approvals(policy: Section, mode: Mode) -> Approvals:
    section = policy.section("approvals")
    if section is None:
        return Approvals()
    if mode is Mode.AUTOMATIC:
        raise policy.bad("approvals", "is set, and nobody is asked.", "Choose mode: assisted.")
    section.only(_APPROVALS_KEYS)
    if not section.data:
        raise policy.bad("approvals", "is empty.", "Say what it asks, such as `two_from: high`.")
    if isinstance(section.data.get("two_from"), list):
        raise section.bad("two_from", "is a list.", "Name the mildest severity that needs two.")
    two_from = next(iter(_choice(section, "two_from", Severity)), None)
    not_requester = section.flag("not_requester", False)
    names = _approver_names(section)
    plain = {name.casefold() for name in names}
    if two_from and names and len(plain) == 1 and not any(set("*?[") & set(one) for one in plain):
        raise section.bad("approvers", "names one person, and two must approve.", "Name another.")
    by_name = bool(two_from or not_requester or names)
    return Approvals(two_from, not_requester, names, section.flag("verified", by_name))


def _approver_names(section: Section) -> tuple[str, ...]:
    names = tuple(" ".join(name.split()) for name in section.texts("approvers"))
    if section.has("approvers") and not all(names):
        raise section.bad("approvers", "has an empty name.", "Write names such as '*@example.org'.")
    if section.has("approvers") and not names:
        raise section.bad("approvers", "is empty.", "Leave it out to let anybody approve.")
    return names


def _one_of(section: Section, key: str, allowed: Sequence[str]) -> tuple[str, ...]:
    values = section.texts(key)
    for value in values:
        if value not in allowed:
            raise section.bad(key, f"{value} is not known.", f"Choose from: {', '.join(allowed)}.")
    return values


def _choice(section: Section, key: str, kind: type[Severity]) -> tuple[Severity, ...]:
    return tuple(kind(value) for value in _one_of(section, key, list(kind)))


def _texts_by_key(section: Section | None) -> dict[str, str]:
    if section is None:
        return {}
    found = {}
    for key, value in section.data.items():
        if not isinstance(key, str):
            raise section.bad(str(key), "is not text.", "Put it in quotes.")
        found[key] = ", ".join(section.texts(key)) if isinstance(value, list) else section.text(key)
    return found


def _duration(section: Section, key: str, default: str) -> timedelta:
    """A number with a unit: 30m, 4h, 2d. From one minute to thirty days."""
    text = section.text(key, default)
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    if not found:
        raise section.bad(key, f"is {text}.", "Write a number and m, h or d, such as 4h.")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[found[2]]
    duration = timedelta(**{unit: int(found[1])})
    if not timedelta(minutes=1) <= duration <= LONGEST:
        raise section.bad(key, f"is {text}.", "Choose from 1m to 30d.")
    return duration
