"""IAM is eventually consistent: STS goes on by an old trust policy for a while."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any


@dataclass
class Trusts:
    """Which trust policy STS knows of each role; ``delay`` after a change, the new one."""

    delay: timedelta = timedelta()
    _before: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)

    def changed(self, role_arn: str, before: str, now: datetime) -> None:
        """Note that a role's trust policy was ``before`` until now."""
        if self.delay:
            old = [one for one in self._before.get(role_arn, ()) if one[0] > now]
            self._before[role_arn] = [*old, (now + self.delay, before)]

    def known(self, role: Any, now: datetime) -> str:
        """The trust policy of moto's ``role`` that STS goes by."""
        for until, document in self._before.get(role.arn, ()):
            if until > now:
                return document
        return role.assume_role_policy_document
