"""One opening of a customer's gate, as both clouds keep it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

# A person has one opening by hand in an account: a new one takes the old one's place. One for a
# remediation's run begins with the same word.
PERSON = "Person"
WARM = ("Warm1", "Warm2")  # taken in turns: the older one still stands when the newer is opened


@dataclass(frozen=True, slots=True)
class Opening:
    """Who may come in until when. Several can stand side by side.

    ``id`` is letters and digits. ``expires_at`` is None where the cloud does not say.
    ``resources`` are the ARM scopes it reaches; empty on AWS, where Suture's session narrows it.
    """

    id: str
    expires_at: datetime | None
    resources: tuple[str, ...] = ()

    @property
    def by(self) -> str:
        """Whom it is for: a "person", a "machine" for one remediation, or "warm", kept ahead."""
        if self.id in WARM:
            return "warm"
        return "person" if self.id.startswith(PERSON) else "machine"


def timestamp(moment: datetime) -> str:
    """As clouds write times: 2026-11-23T10:00:00Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime | None:
    """The time that ``timestamp`` wrote; None for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None
