"""The form an approver fills in, in Prefect's UI.

Fields are plain text on purpose: Prefect stores what fails a validator in the run's state and logs,
so the guard checks every field before Prefect sees it (``tasks.approval`` holds the rules).
Descriptions are plain too: one of Prefect's two UIs shows Markdown there, the other its marks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from prefect.input import RunInput
from pydantic import Field, create_model

from tasks.approvers import Terms
from tasks.model import Input

# How each kind of value is written.
HOW_TO_WRITE = {
    "cidrs": "CIDRs with commas between, such as 10.0.0.0/8, 2001:db8::/32; empty allows none.",
    "number": "A whole number.",
    "text": "",
}

CODE_NEEDED = (
    "Needed to approve: the customer opens the gate and reads it to you. "
    "Used once and stored nowhere."
)
CODE_OPENS = (
    "Needed to approve: what the customer's authenticator shows right now. It opens the gate. "
    "Used once and stored nowhere."
)
CODE_LATER = "Leave it empty: the second person who approves types it."


def approval_form(
    inputs: Iterable[Input],
    page: str,
    *,
    numbers: int,
    terms: Terms | None = None,
    opens_gate: bool = False,
) -> type[RunInput]:
    """The form of one approval: the decision, each value the fixes take, and the approver's code.

    ``page`` is the markdown shown above the fields, ``numbers`` the last number in its table,
    ``terms`` who may approve. ``opens_gate``: the code opens the gate by itself. Kinds, numbers
    and terms travel in the form's schema, where the guard reads them. The first approval of two
    needs no code: it would be old before the second, and may be kept nowhere. It has the field
    all the same, by which forms are guarded. Fields stand in the order of an approver's
    thoughts, the code last: it lives for half a minute only. The decision has no default,
    because one required field at least makes concurrent answers safe.
    """
    terms = terms or Terms()
    fields: dict[str, Any] = {
        "decision": (
            Literal["approve", "deny"],
            Field(
                title="Decision",
                description="approve makes the changes above; deny leaves everything as it is.",
            ),
        ),
        **{value.name: (str, _value(value)) for value in inputs},
        "leave_out": (
            str,
            Field(
                default="",
                title="Leave out",
                description="Numbers in the table of changes that must stay as they are, "
                "such as 2, 5-7.",
                json_schema_extra={"numbers": numbers},
            ),
        ),
        "approver": (
            str,
            Field(
                title="Your name",
                description="Written down with the decision.",
                json_schema_extra={"terms": terms.as_json()},
            ),
        ),
        "code": (
            str,
            Field(
                default="",
                title="6-digit code",
                description=_about_code(terms, opens_gate=opens_gate),
            ),
        ),
    }
    form = create_model("Approval", __base__=RunInput, **fields)
    return form.with_initial_data(description=page)


def _about_code(terms: Terms, *, opens_gate: bool) -> str:
    if not terms.last:
        return CODE_LATER
    return CODE_OPENS if opens_gate else CODE_NEEDED


def _value(asked: Input) -> Any:
    description = f"{HOW_TO_WRITE[asked.kind]} Used for every change above that takes it."
    return Field(
        default=asked.default,
        title=asked.label,
        description=description.strip(),
        json_schema_extra={"kind": asked.kind},
    )
