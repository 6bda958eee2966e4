"""What an approver may answer, and how a bad answer is said without repeating it. Pure.

The guard (``deployments.guard``) checks what a person typed before Prefect sees it; the flow checks
again what it reads back. No message here ever carries a value: a code typed into the wrong field
must not end up in a toast, a state or a log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any

from pydantic import SecretStr

from tasks.approvers import Terms, terms_from_json
from tasks.errors import BadAnswer
from tasks.model import Input

CODE_DIGITS = 6
HANDLE_PREFIX = "suture-code:"
MAX_CHARACTERS = 2_000
MAX_CIDRS = 50
MAX_NUMBER = 99_999
OWN_FIELDS = ("decision", "approver", "code", "leave_out")

# The widest a source may be: wider is the internet in all but name.
_MIN_PREFIX = {4: 8, 6: 16}
_OWN_IPV6 = IPv6Network("fc00::/7")
_MAPPED_IPV4 = IPv6Network("::ffff:0:0/96")
_HANDLE = re.compile(re.escape(HANDLE_PREFIX) + r"[A-Za-z0-9_-]{43}")
_CODE = re.compile(rf"[0-9]{{{CODE_DIGITS}}}")
_NETWORK = re.compile(r"[0-9A-Fa-f:.]+/[0-9]{1,3}")
_NUMBERS = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_SEPARATORS = re.compile(r"[,;\s]+")

Network = IPv4Network | IPv6Network


class Decision(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an answer: the field, what is wrong, and what to write instead."""

    field: str
    problem: str
    fix: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (f"{self.field}: {self.problem}", self.fix) if part)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that can be acted on.

    ``code`` is what stood in the code field: six digits when a person has just typed them, a handle
    once the guard has passed it, empty when there was none. ``values`` holds the inputs, parsed:
    a tuple of networks for "cidrs", an int for "number", text for "text"; an empty optional
    "number" or "text" is left out.
    """

    decision: Decision
    approver: str
    code: SecretStr
    leave_out: frozenset[int]
    values: Mapping[str, Any]

    @property
    def approved(self) -> bool:
        return self.decision is Decision.APPROVE

    @property
    def handle(self) -> str:
        """What redeems the code and the approver's name at the server; empty if there is none."""
        text = self.code.get_secret_value()
        return text if is_handle(text) else ""


@dataclass(frozen=True, slots=True)
class FormShape:
    """What a stored form asks beyond the fields of every approval.

    ``numbers`` is how many rows its table has, None when the form does not say. ``titles`` are its
    fields' names as people see them. ``terms`` is who may approve it.
    """

    numbers: int | None = None
    inputs: tuple[Input, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)

    def said(self, problem: Problem) -> str:
        """A problem in words, under the field's name as the form shows it."""
        return str(replace(problem, field=self.titles.get(problem.field, problem.field)))


@dataclass(slots=True)
class _Reading:
    """An answer being read: what was understood, and everything that was not."""

    problems: list[Problem] = field(default_factory=list)
    decision: Decision = Decision.DENY
    approver: str = ""
    code: str = ""
    leave_out: frozenset[int] = frozenset()
    values: dict[str, Any] = field(default_factory=dict)

    def bad(self, name: str, problem: str, fix: str = "") -> None:
        self.problems.append(Problem(name, problem, fix))


def check(
    fields: Mapping[str, object],
    *,
    numbers: int | None = None,
    inputs: Iterable[Input] = (),
    typed: bool = False,
    approver: str | None = None,
    code_needed: bool = True,
) -> Answer:
    """The answer in ``fields``, or BadAnswer for the first thing wrong with it.

    ``numbers`` is how many rows the approver could leave out, ``inputs`` the values the form asked.
    ``typed`` is the guard's view: an approval needs six digits and a handle is refused. Without it
    (the flow's view) an approval needs a handle, because digits would mean that the answer came
    round the guard and is at rest in a database. ``approver`` is who the sign-in proxy says it is,
    and replaces what the person wrote. Without ``code_needed`` (the first approval of two) a code
    that was typed all the same goes nowhere.
    """
    reading = _read(fields, numbers, tuple(inputs), typed, approver, code_needed)
    if reading.problems:
        first = reading.problems[0]
        raise BadAnswer(first.field, first.problem, first.fix)
    return Answer(
        decision=reading.decision,
        approver=reading.approver,
        code=SecretStr(reading.code),
        leave_out=reading.leave_out,
        values=reading.values,
    )


def problems(
    fields: Mapping[str, object],
    *,
    numbers: int | None = None,
    inputs: Iterable[Input] = (),
    typed: bool = False,
    approver: str | None = None,
    code_needed: bool = True,
) -> list[Problem]:
    """Everything wrong with an answer, in the form's order; empty when ``check`` would pass."""
    return _read(fields, numbers, tuple(inputs), typed, approver, code_needed).problems


def is_handle(text: str) -> bool:
    """Whether ``text`` has the form of a handle, as ``suture server`` gives them."""
    return _HANDLE.fullmatch(text) is not None


def form_shape(schema: Mapping[str, Any]) -> FormShape | None:
    """What a stored JSON schema asks, or None when it is not a Suture approval.

    A form with a ``code`` field is one. ``leave_out`` may carry "numbers" (rows in the table),
    ``approver`` "terms" (see Terms) and each value field "kind" (see Input), as extra keys of its
    schema.
    """
    asked = schema.get("properties")
    if not isinstance(asked, Mapping) or "code" not in asked:
        return None
    numbers = _mapping(asked.get("leave_out")).get("numbers")
    terms = _mapping(asked.get("approver")).get("terms")
    required = schema.get("required")
    return FormShape(
        numbers=numbers if isinstance(numbers, int) else None,
        inputs=tuple(
            Input(
                name=name,
                kind=_kind(name, _mapping(description)),
                label=str(_mapping(description).get("title", name)),
                required=isinstance(required, list) and name in required,
            )
            for name, description in asked.items()
            if name not in OWN_FIELDS
        ),
        titles={
            name: str(_mapping(description).get("title", name))
            for name, description in asked.items()
        },
        terms=terms_from_json(terms) if terms else Terms(),
    )


def parse_cidrs(name: str, text: str) -> tuple[str, ...]:
    """The networks in ``text`` (commas or spaces between), each once, as ``ipaddress`` writes them.

    Raises BadAnswer for what is no network, has host bits, or is the internet.
    """
    reading = _Reading()
    networks = _cidrs(reading, name, text)
    if reading.problems:
        first = reading.problems[0]
        raise BadAnswer(first.field, first.problem, first.fix)
    return networks


def parse_values(inputs: Iterable[Input], texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of ``inputs`` in ``texts`` (a policy's presets, a command line), parsed.

    Texts that no input asks for are passed over. Raises BadAnswer naming the first bad field.
    """
    reading = _Reading(decision=Decision.APPROVE)
    for asked in inputs:
        _value(reading, asked, texts.get(asked.name, asked.default).strip())
    if reading.problems:
        first = reading.problems[0]
        raise BadAnswer(first.field, first.problem, first.fix)
    return reading.values


def _read(
    fields: Mapping[str, object],
    numbers: int | None,
    inputs: tuple[Input, ...],
    typed: bool,
    approver: str | None,
    code_needed: bool,
) -> _Reading:
    reading = _Reading()
    if approver is not None:
        fields = {**fields, "approver": approver}
    texts = _texts(reading, fields, {*OWN_FIELDS, *(asked.name for asked in inputs)})
    if reading.problems:
        return reading
    _decision(reading, texts.get("decision", ""))
    _approver(reading, texts.get("approver", ""), own_word=typed and approver is None)
    _code(reading, texts.get("code", ""), typed, needed=code_needed)
    _leave_out(reading, texts.get("leave_out", ""), numbers)
    for asked in inputs:
        _value(reading, asked, texts.get(asked.name, ""))
    _code_elsewhere(reading, texts)
    return reading


def _texts(reading: _Reading, fields: Mapping[str, object], known: set[str]) -> dict[str, str]:
    """The known fields as stripped text; nulls and absent fields are left out."""
    if not fields.keys() <= known:
        # Its name was typed too: it is not repeated either.
        reading.bad("form", "has a field that was not asked.", "Reload the page and answer again.")
    texts = {}
    for name in fields.keys() & known:
        value = fields[name]
        if value is None:
            continue
        if not isinstance(value, str):
            reading.bad(name, "must be text.")
        elif len(value) > MAX_CHARACTERS:
            reading.bad(name, f"is longer than {MAX_CHARACTERS:,} characters.", "Shorten it.")
        else:
            texts[name] = value.strip()
    reading.problems.sort(key=lambda problem: problem.field)
    return texts


def _decision(reading: _Reading, text: str) -> None:
    if text in set(Decision):
        reading.decision = Decision(text)
    else:
        reading.bad("decision", "must be approve or deny.")


def _approver(reading: _Reading, text: str, *, own_word: bool) -> None:
    if not 2 <= len(text) <= 100:
        reading.bad("approver", "must have 2 to 100 characters.", "Write your name.")
    elif not text.isprintable():
        reading.bad("approver", "has characters that do not print.", "Write your name plainly.")
    elif own_word and _CODE.fullmatch("".join(text.split())):
        reading.bad(
            "approver", "looks like a code.", "Write your name; the code has its own field."
        )
    else:
        reading.approver = text


def _code(reading: _Reading, text: str, typed: bool, *, needed: bool) -> None:
    """Where none is needed, as for a denial, one typed all the same is dropped here."""
    if not typed:
        if is_handle(text):
            reading.code = text
        elif reading.decision is Decision.APPROVE:
            reading.bad(
                "code", "did not come through suture server.", "Resume the run on that server."
            )
        return
    if reading.decision is not Decision.APPROVE or not needed:
        return
    digits = "".join(text.split())
    if _CODE.fullmatch(digits):
        reading.code = digits
    else:
        reading.bad(
            "code",
            f"must be exactly {CODE_DIGITS} digits to approve." if text else "is missing.",
            "Type the code that the authenticator shows now.",
        )


def _leave_out(reading: _Reading, text: str, numbers: int | None) -> None:
    last = MAX_NUMBER if numbers is None else numbers
    chosen: set[int] = set()
    # "2 - 4" and the dash that a word processor makes of it are ranges too.
    parts = [part for part in _SEPARATORS.split(re.sub(r"\s*[-–]\s*", "-", text)) if part]
    for position, part in enumerate(parts, 1):
        match = _NUMBERS.fullmatch(part)
        if match is None:
            reading.bad(
                "leave_out", f"part {position} is not a number.", "Write numbers such as 2, 5-7."
            )
            return
        first, until = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= until <= last:
            reading.bad(
                "leave_out",
                f"part {position} is not in the table.",
                f"Its numbers go from 1 to {last}." if numbers else "",
            )
            return
        chosen.update(range(first, until + 1))
    if numbers and len(chosen) == numbers and reading.decision is Decision.APPROVE:
        reading.bad("leave_out", "leaves nothing to change.", "Choose deny instead.")
    reading.leave_out = frozenset(chosen)


def _value(reading: _Reading, asked: Input, text: str) -> None:
    if asked.required and not text and reading.decision is Decision.APPROVE:
        reading.bad(asked.name, "is missing.")
    elif asked.kind == "cidrs":
        reading.values[asked.name] = _cidrs(reading, asked.name, text)
    elif not text:
        return
    elif asked.kind == "number":
        if re.fullmatch(r"[0-9]{1,5}", text):
            reading.values[asked.name] = int(text)
        else:
            reading.bad(asked.name, f"must be a whole number from 0 to {MAX_NUMBER:,}.")
    elif text.isprintable():
        reading.values[asked.name] = text
    else:
        reading.bad(asked.name, "has characters that do not print.")


def _cidrs(reading: _Reading, name: str, text: str) -> tuple[str, ...]:
    parts = [part for part in _SEPARATORS.split(text) if part]
    if len(parts) > MAX_CIDRS:
        reading.bad(name, f"has more than {MAX_CIDRS} networks.", "Group them into wider ones.")
        return ()
    networks: list[Network] = []
    for position, part in enumerate(parts, 1):
        network = _network(reading, name, position, part)
        if network is None:
            return ()
        networks.append(network)
    if any(_too_much(networks, version) for version in _MIN_PREFIX):
        reading.bad(name, "would together allow much of the internet.", "Name your own networks.")
        return ()
    return tuple(dict.fromkeys(str(network) for network in networks))


def _network(reading: _Reading, name: str, position: int, part: str) -> Network | None:
    where = f"network {position}"
    if "/" not in part:
        reading.bad(
            name,
            f"{where} has no prefix length.",
            "Write /32 (IPv4) or /128 (IPv6) for one address.",
        )
        return None
    network = _parsed(part, strict=False) if _NETWORK.fullmatch(part) else None
    if network is None:
        reading.bad(name, f"{where} is not a network.", "Write CIDRs such as 10.0.0.0/8.")
        return None
    if _parsed(part, strict=True) is None:
        reading.bad(
            name,
            f"{where} has bits set after its prefix.",
            "Write the network's first address, or a longer prefix.",
        )
        return None
    if _too_wide(network):
        reading.bad(name, f"{where} is the internet, or nearly.", "Name your own networks.")
        return None
    if isinstance(network, IPv6Network) and network.overlaps(_MAPPED_IPV4):
        reading.bad(name, f"{where} is IPv4 in IPv6's clothes.", "Write it as IPv4.")
        return None
    return network


def _parsed(part: str, *, strict: bool) -> Network | None:
    try:
        return ip_network(part, strict=strict)
    except ValueError:
        return None


def _too_wide(network: Network) -> bool:
    return network.prefixlen < _MIN_PREFIX[network.version] and not _is_own(network)


def _too_much(networks: Iterable[Network], version: int) -> bool:
    """Whether many networks, each fine, are together more than 16 of the widest allowed."""
    same = [network for network in networks if network.version == version and not _is_own(network)]
    merged: list[Network] = list(collapse_addresses(same))  # type: ignore[type-var]
    widest = 1 << ((32 if version == 4 else 128) - _MIN_PREFIX[version])
    return sum(network.num_addresses for network in merged) > 16 * widest


def _is_own(network: Network) -> bool:
    """IPv6's private range is wider than what is allowed elsewhere."""
    return isinstance(network, IPv6Network) and network.subnet_of(_OWN_IPV6)


def _code_elsewhere(reading: _Reading, texts: Mapping[str, str]) -> None:
    """Every other field is stored as it is, so the code must not stand in one of them."""
    code = "".join(texts.get("code", "").split())
    if not _CODE.fullmatch(code):
        return
    for name, text in texts.items():
        if name != "code" and code in "".join(text.split()):
            reading.bad(name, "holds the code.", "Type the code into its own field only.")


def _kind(name: str, description: Mapping[str, Any]) -> str:
    kind = description.get("kind")
    if isinstance(kind, str):
        return kind
    return "cidrs" if name.endswith("cidrs") else "text"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
