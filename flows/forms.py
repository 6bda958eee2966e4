"""The forms an approver fills in, in Prefect's UI.

Fields are plain text on purpose: Prefect stores what fails a validator in the run's state and logs,
so the guard checks every field before Prefect sees it (``tasks.approval`` holds the rules).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from prefect.input import RunInput
from pydantic import Field, create_model

from tasks.model import Input


class Approval(RunInput):
    """What every approval asks. One required field at least makes concurrent answers safe."""

    decision: Literal["approve", "deny"] = Field(
        title="Decision", description="Approve applies the changes above; deny leaves all as it is."
    )
    approver: str = Field(title="Your name", description="Written down with the decision.")
    code: str = Field(
        default="",
        title="6-digit code",
        description="From the customer's authenticator, or printed by `suture gate open`. "
        "Used once, never stored. Leave empty to deny.",
    )
    leave_out: str = Field(
        default="",
        title="Leave out",
        description="Numbers from the table that must not be changed, such as 2, 5-7.",
    )


def approval_form(inputs: Iterable[Input], page: str, *, numbers: int) -> type[Approval]:
    """The approval form with one more field for each value that the fixes take.

    ``page`` is the markdown shown above the fields, ``numbers`` the last number in its table. Kinds
    and numbers travel in the form's schema, where the guard reads them.
    """
    fields: dict[str, Any] = {
        value.name: (
            str,
            Field(
                default=value.default,
                title=value.label,
                description="Used for every change above that takes it.",
                json_schema_extra={"kind": value.kind},
            ),
        )
        for value in inputs
    }
    left_out = Approval.model_fields["leave_out"]
    fields["leave_out"] = (
        str,
        Field(
            default="",
            title=left_out.title,
            description=left_out.description,
            json_schema_extra={"numbers": numbers},
        ),
    )
    form = create_model("Approval", __base__=Approval, **fields)
    return form.with_initial_data(description=page)
