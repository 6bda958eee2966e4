"""The parts that let events reach Suture, by name: also for those who need no rule table."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """Hub and member are AWS's: who takes events, who sends. Queue and subscription are Azure's."""

    HUB = "hub"
    MEMBER = "member"
    QUEUE = "queue"
    SUBSCRIPTION = "subscription"
