"""Which controls of the CIS benchmarks the table answers, and why it cannot answer the others.

A control counts here if the benchmark marks it Automated: something can tell without a person.
Source: CIS Amazon Web Services Foundations 6.0 and Microsoft Azure Foundations 5.0, the numbers
of their recommendations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.model import Rule

AUTOMATED = {
    "cis-aws-6.0": """
        2.3 2.4 2.7 2.8 2.9 2.11 2.12 2.13 2.14 2.15 2.16 2.17 2.18 2.19 3.1.1 3.1.4 3.2.1 3.2.2
        3.2.3 3.3.1 4.2 4.3 4.5 4.6 4.7 4.8 4.9 5.16 6.1.1 6.1.2 6.2 6.3 6.4 6.5 6.7""",
    "cis-azure-5.0": """
        2.1.1 2.1.2 2.1.7 2.1.9 2.1.10 2.1.11 5.1.1 5.1.2 5.3.3 5.4 5.14 5.15 5.16 5.23 5.27
        6.1.1.1 6.1.1.2 6.1.1.4 6.1.1.6 6.1.2.1 6.1.2.2 6.1.2.3 6.1.2.4 6.1.2.5 6.1.2.6 6.1.2.7
        6.1.2.8 6.1.2.9 6.1.2.10 6.1.2.11 6.1.3.1 7.1 7.2 7.3 7.4 7.5 7.6 7.8 7.10 7.11 7.12 7.13
        7.14 7.15 8.1.1.1 8.1.2.1 8.1.3.1 8.1.3.3 8.1.4.1 8.1.5.1 8.1.6.1 8.1.7.1 8.1.7.2 8.1.7.3
        8.1.7.4 8.1.8.1 8.1.9.1 8.1.10 8.1.12 8.1.13 8.1.14 8.1.15 8.3.1 8.3.2 8.3.3 8.3.4 8.3.5
        8.3.6 8.3.7 8.3.8 8.3.9 8.3.11 8.4.1 8.5 9.1.1 9.1.2 9.1.3 9.2.1 9.2.2 9.2.3 9.3.1.1
        9.3.1.2 9.3.1.3 9.3.2.1 9.3.2.2 9.3.2.3 9.3.3.1 9.3.4 9.3.5 9.3.6 9.3.7 9.3.8 9.3.11""",
}

_DIRECTORY = (
    "is a setting of the whole Entra directory, told by Microsoft Graph alone: the scanner has a "
    "role in subscriptions and no right in the directory"
)
UNANSWERED = {
    "cis-azure-5.0:5.1.1": f"Whether security defaults are on {_DIRECTORY}.",
    "cis-azure-5.0:5.1.2": f"Whether each user has a second factor {_DIRECTORY}.",
    "cis-azure-5.0:5.4": f"Whether any user may make tenants {_DIRECTORY}.",
    "cis-azure-5.0:5.14": f"Whether any user may register applications {_DIRECTORY}.",
    "cis-azure-5.0:5.15": f"What a guest may see {_DIRECTORY}.",
    "cis-azure-5.0:5.16": f"Who may invite guests {_DIRECTORY}.",
    "cis-azure-5.0:8.3.11": (
        "How long certificates are valid is told by each vault's data plane: to ask it, the "
        "scanner would need access to the certificates themselves, and reading is all of the "
        "settings and none of the contents."
    ),
}


@dataclass(frozen=True)
class Control:
    """One control: the ids of the rules that answer it, or why none can."""

    id: str
    rules: tuple[str, ...]
    reason: str = ""


def controls(rules: Sequence[Rule]) -> tuple[Control, ...]:
    """Every control marked Automated, in the order of its benchmark."""
    return tuple(
        Control(
            control,
            tuple(one.id for one in rules if control in one.controls),
            UNANSWERED.get(control, ""),
        )
        for benchmark, numbers in AUTOMATED.items()
        for control in (f"{benchmark}:{number}" for number in numbers.split())
    )


def markdown_controls(rules: Sequence[Rule]) -> str:
    """What the README says of the benchmarks: how many, and which are not answered."""
    known = controls(rules)
    open_ones = [one for one in known if not one.rules]
    lines = [f"- `{one.id}`: {one.reason}" for one in open_ones]
    return f"{_answered(known)} The rest cannot be answered with what a scanner may read:\n\n" + (
        "\n".join(lines) + "\n"
    )


def _answered(known: Iterable[Control]) -> str:
    told = []
    for benchmark in AUTOMATED:
        mine = [one for one in known if one.id.startswith(f"{benchmark}:")]
        told.append(f"{sum(bool(one.rules) for one in mine)} of {len(mine)} of `{benchmark}`")
    return f"Of the controls that CIS marks Automated, the rules answer {', '.join(told)}."
