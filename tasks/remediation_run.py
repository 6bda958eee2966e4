"""One remediation run in memory: its findings, where each stands, and what its form asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from tasks import settings
from tasks.approvers import Terms
from tasks.clouds.session_policy import permissions
from tasks.errors import SutureError
from tasks.inventory import Inventory, load_inventory
from tasks.model import Account, Cloud, Input
from tasks.plan import Plan, approval_page, as_code
from tasks.policy import Mode, Policy
from tasks.rules import rule

if TYPE_CHECKING:
    from tasks.carrying import Carrier

MOST_ROUNDS = 5  # how often one run asks again, after wrong codes, bad values or drift
WAITING = ("planned", "waiting")
_ARM_WHOLE = 9  # pieces of an id: /subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME


@dataclass(frozen=True, slots=True)
class More:
    """Findings that came while a run was changing others: of its account, under its policy."""

    finding_ids: tuple[str, ...]
    requested_by: str


# What a run without an approver asks when all that it had is at its end: what else it is to take
# on, None where it is to end. A run below a listener costs more than what it does.
MORE: ContextVar[Callable[[], More | None]] = ContextVar("more", default=lambda: None)


@dataclass(slots=True)
class Item:
    """One finding in a run: its row in the warehouse, its plan, and where it stands.

    ``drifted`` is set when its resource was found changed since the plan was shown.
    """

    id: str
    finding_id: str
    plan: Plan | None
    state: str
    message: str = ""
    drifted: bool = False

    @property
    def planned(self) -> Plan:
        """Its plan; only what could not be read, or was gone, has none, and is at its end."""
        if self.plan is None:
            raise SutureError(f"finding {self.finding_id} has no plan")
        return self.plan

    @property
    def number(self) -> int:
        return self.planned.number


@dataclass(frozen=True, slots=True)
class Answered:
    """What an approver or the customer's token endpoint answered.

    ``chosen`` are the numbers to be closed now; none when it was denied or has to be asked again.
    ``until`` is when the gate closes, where that is known: a machine's opening is waited for.
    """

    code: SecretStr
    chosen: tuple[int, ...] = ()
    approver: str = ""
    verified: bool = False
    until: datetime | None = None


NOTHING_CHOSEN = Answered(SecretStr(""))


class Run:
    """A remediation run: findings of one account under one policy.

    Not a dataclass on purpose: Prefect looks into those when they are passed to tasks. ``changed``
    are the resources that this process has written to, ``gate_refusal`` why the gate did not open
    in this round.
    """

    def __init__(
        self,
        run_id: str,
        account: Account,
        policy: Policy,
        requested_by: str,
        items: Sequence[Item] = (),
        *,
        round_: int = 1,
        expires_at: datetime | None = None,
        notes: Sequence[str] = (),
        undoes: str = "",
        terms: Terms | None = None,
        requester_verified: bool = False,
        inventory: Inventory | None = None,
    ) -> None:
        self.id = run_id
        self.account = account
        self.policy = policy
        self.requested_by = requested_by
        self.requester_verified = requester_verified
        self.items = list(items)
        self.round = round_
        self.expires_at = expires_at or datetime.now(UTC) + policy.expires
        self.notes = list(notes)
        self.undoes = undoes  # the remediation that this run takes back
        self.terms = terms or Terms()  # who may approve, and who has
        self.changed: set[str] = set()
        self.gate_refusal = ""
        self.gate_stays = False  # the customer keeps it open ahead, for others as well
        self.interrupted = False  # its process is about to end
        self.named = ""  # what the UI calls it
        self.next_number = 1  # of what is planned next
        self.carrier: Carrier | None = None  # this process's hold on it
        self.inventory = inventory or load_inventory(settings.inventory_path())

    @property
    def waiting(self) -> list[Item]:
        return [item for item in self.items if item.state in WAITING]

    @property
    def goes_on(self) -> bool:
        """Whether the next finding may be begun."""
        return not (self.gate_refusal or self.interrupted)

    def apart(self, chosen: Sequence[int]) -> list[list[int]]:
        """The chosen numbers in turns: within one, no two are of the same resource.

        Nor of parts of one: ARM refuses a change of a resource while another goes on.
        """
        turns: list[list[int]] = []
        taken: Counter[str] = Counter()
        for number in chosen:
            resource = self.item(number).planned.resource.id
            whole = resource
            if self.account.cloud is Cloud.AZURE:
                whole = "/".join(resource.lower().split("/")[:_ARM_WHOLE])
            if taken[whole] == len(turns):
                turns.append([])
            turns[taken[whole]].append(number)
            taken[whole] += 1
        return turns

    @property
    def concluded(self) -> bool:
        """Whether a round left nothing to be done after it: all is at its end, and nobody has
        opened a gate for it."""
        open_states = (*WAITING, "applying")
        return self.gate_stays and not any(item.state in open_states for item in self.items)

    @property
    def takes_more(self) -> bool:
        """Whether it may be given other findings, after a round that went well."""
        return self.automatic and not self.undoes and self.goes_on and not self.waiting

    @property
    def automatic(self) -> bool:
        return self.policy.mode is Mode.AUTOMATIC

    @property
    def presents_codes(self) -> bool:
        """Whether an approver's code opens the gate by itself, at the customer's opener."""
        return not self.automatic and self.inventory.source(self.account.source).presents_codes

    @property
    def asks_opener(self) -> bool:
        """Whether the customer's opener opens the gate for this run, and is to close it."""
        return self.automatic or self.presents_codes

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The values that the waiting fixes take, each asked once, filled in as planned."""
        asked: dict[str, Input] = {}
        for item in self.waiting:
            if item.planned.restores:
                continue
            for value in rule(item.planned.rule).inputs:
                planned = _as_typed(item.planned.values.get(value.name, value.default))
                asked.setdefault(
                    value.name, Input(value.name, value.kind, value.label, value.required, planned)
                )
        return tuple(asked.values())

    @property
    def key(self) -> str:
        """What Prefect knows the pause of this round by."""
        return f"approval-{self.round}"

    @property
    def last_number(self) -> int:
        return max((item.number for item in self.waiting), default=0)

    @property
    def seconds_left(self) -> int:
        """Until the approval expires; at least one second."""
        return max(1, int((self.expires_at - datetime.now(UTC)).total_seconds()))

    @property
    def title(self) -> str:
        """What the run is called in the UI."""
        if self.undoes:
            planned = self.items[0].planned
            verb = "Fix again" if planned.applies_again else "Put back"
            return f"{verb} {planned.resource.name}"[:100]
        count = len(self.items)
        return f"Fix {count} finding{'s' * (count != 1)} in {self.account.id}"

    def item(self, number: int) -> Item:
        """The item of that number in the approver's table."""
        return next(item for item in self.items if item.plan and item.number == number)

    def page(self) -> str:
        """What the approver reads above the form: what, where, why, the diff, what it needs."""
        plans = [item.planned for item in self.waiting]
        what = "change" if len(plans) == 1 else "changes"
        place = "AWS account" if self.account.cloud is Cloud.AWS else "Azure subscription"
        return approval_page(
            plans,
            heading=f"{len(plans)} {what} in {place} {self.account.id}",
            notes=[*(f"**Asked again:** {as_code(note)}" for note in self.notes), *self._notes()],
            reasons={plan.title: _why(plan) for plan in plans},
            needs=lambda plan: permissions(plan.steps, undo=True),
            guides={plan.rule: rule(plan.rule).guide for plan in plans if not plan.restores},
        )

    def _notes(self) -> list[str]:
        name = f" ({as_code(self.account.name)})" if self.account.name else ""
        under = f"under the policy {as_code(self.policy.name)}" if self.policy.name else ""
        notes = [
            f"Account {as_code(self.account.id)}{name}. Asked for by "
            f"{as_code(self.requested_by)} {under}. "
            f"Waits until {self.expires_at:%Y-%m-%d %H:%M} UTC; nothing is changed before that "
            "without an approval.",
            self._about_code(),
            *self._about_approvers(),
        ]
        if self.undoes:
            again = self.items[0].planned.applies_again
            notes.insert(
                0,
                f"This takes back the remediation {as_code(self.undoes)}. "
                "The finding that it "
                + ("opened will be closed again." if again else "closed will be open again."),
            )
        return notes

    def _about_approvers(self) -> list[str]:
        """What the approver must know of the others, one paragraph for each thing."""
        terms = self.terms
        about = []
        if terms.needed > 1:
            given = "; ".join(
                f"{as_code(one.approver)} ({'verified' if one.verified else 'name as typed'})"
                for one in terms.given
            )
            now = (
                f"Approved already by {given}: another person must approve now, with the code."
                if given
                else "This is the first approval and needs no code. "
                "Whoever approves second types it; other values than yours need you again."
            )
            about.append(f"**Two people must approve.** {now}")
        if terms.approvers:
            lists = " and ".join(
                " or ".join(as_code(name) for name in names) for names in terms.approvers
            )
            about.append(f"**Who may approve:** {lists}.")
        if terms.not_requester:
            about.append("**Who asked for this** may not approve it.")
        return about

    def _about_code(self) -> str:
        if self.presents_codes:
            return (
                "**The code:** the 6 digits that the customer's authenticator shows right now. "
                "Their opener checks them and opens the gate; nobody needs to open it before."
            )
        opener = ""
        if self.inventory.source(self.account.source).token_endpoint:
            opener = (
                " Or whoever has the authenticator runs "
                f"`{self._gate_command()} --opener`, and reads out the code typed there."
            )
        return (
            "**The code:** someone with the customer's own credentials runs "
            f"`{self._gate_command()}` and reads out the 6 digits it prints.{opener}"
        )

    def _gate_command(self) -> str:
        """Azure's gate opens for named resources, which the run knows; AWS's for the account."""
        run = f" --run {self.id}" if self.account.cloud is Cloud.AZURE else ""
        return f"suture gate open {self.account.id}{run} --minutes 10"


def _as_typed(value: Any) -> str:
    """A parsed value as an approver would type it."""
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _why(plan: Plan) -> str:
    """Why it matters, in the words of the rule's guide; for an undo, nothing."""
    return "" if plan.restores else paragraph(rule(plan.rule).guide, "Why it matters.")


def paragraph(guide: str, head: str) -> str:
    """The paragraph of a guide that begins with ``head`` in bold, without the head, in one line."""
    for text in guide.split("\n\n"):
        start = f"**{head}**"
        if text.startswith(start):
            return " ".join(text.removeprefix(start).split())
    return ""
