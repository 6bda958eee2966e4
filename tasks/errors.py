"""Every error Suture raises on purpose, as one tree.

SutureError
├── BadInput              a person or a file gave something unusable; names the field and the fix
│   ├── BadInventory      the inventory file, with its line
│   ├── BadPolicy         the policy file, with its line
│   ├── BadAnswer         what an approver typed; never carries the value itself
│   └── BadEvent          a control-plane event, or what a queue or webhook gave for one
├── MissingData           a rule asked for a part of a resource that could not be read
├── CloudError            a cloud answered no, or not at all
│   ├── AccessRefused     not allowed (AccessDenied, AuthorizationFailed, a closed gate)
│   ├── Throttled         too many requests, after all retries
│   ├── CloudTimeout      no answer in time
│   ├── ResourceGone      the resource does not exist any more
│   └── Conflict          the resource changed under us (stale ETag, 412)
├── GateRefused           the gate did not open: wrong or expired code, no opener, gate closed
├── Drifted               the resource changed since the plan was shown
├── HeldBack              it may not be done now, and nothing is wrong with it
│   ├── Halted            somebody has stopped remediation, or nobody can say that they have not
│   └── Capped            a policy has changed as much in an hour as it may
├── ApplyFailed           a step failed; says which steps were undone
└── VerifyFailed          the rule still fails after the fix
"""

from __future__ import annotations


class SutureError(Exception):
    """The root of Suture's own errors."""


def words_of(error: BaseException) -> str:
    """What may be kept and shown of an error: other people's may quote what they were given, so
    that only their name is.
    """
    return str(error) if isinstance(error, SutureError) else type(error).__name__


class BadInput(SutureError):
    """Unusable input. ``field`` names where it stood, ``fix`` what to write instead."""

    def __init__(self, field: str, problem: str, fix: str = "") -> None:
        self.field = field
        self.problem = problem
        self.fix = fix
        super().__init__(f"{field}: {problem}" + (f" {fix}" if fix else ""))


class BadFile(BadInput):
    """Unusable input in a file; ``line`` counts from 1."""

    def __init__(
        self, field: str, problem: str, fix: str = "", *, file: str = "", line: int = 0
    ) -> None:
        super().__init__(field, problem, fix)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file or self.line else ""
        return where + super().__str__()


class BadInventory(BadFile):
    """The inventory file cannot be used."""


class BadPolicy(BadFile):
    """The policy file cannot be used."""


class BadAnswer(BadInput):
    """An approver's answer cannot be used. The message never repeats what was typed."""


class BadEvent(BadInput):
    """What came for a control-plane event is none: no later try will read it."""


class MissingData(SutureError):
    """A part of a resource is not there to be judged: the verdict is unknown, never pass."""

    def __init__(self, part: str, reason: str = "was not collected") -> None:
        self.part = part
        self.reason = reason
        super().__init__(f"{part} {reason}")


class CloudError(SutureError):
    """A cloud refused or failed. ``code`` is the cloud's own error code."""

    def __init__(self, message: str, *, code: str = "", operation: str = "") -> None:
        self.code = code
        self.operation = operation
        self.message = message
        head = " ".join(part for part in (operation, code) if part)
        super().__init__(f"{head}: {message}" if head else message)


class AccessRefused(CloudError):
    """The identity is not allowed to do this."""


class Throttled(CloudError):
    """The cloud kept answering 'too many requests'."""


class CloudTimeout(CloudError):
    """The cloud did not answer in time."""


class ResourceGone(CloudError):
    """The resource does not exist any more."""


class Conflict(CloudError):
    """The resource changed between our read and our write (HTTP 412 or 409)."""


class GateRefused(SutureError):
    """The gate is closed to this code. The message never repeats the code."""


class Drifted(SutureError):
    """The resource is no longer what the approved plan was made from."""


class HeldBack(SutureError):
    """A fix may not be made now; its finding waits. ``state`` is what the remediation ends as."""

    state = ""


class Halted(HeldBack):
    """Remediation is halted, or whether it is cannot be asked."""

    state = "halted"


class Capped(HeldBack):
    """As many changes were begun within the hour as may be."""

    state = "capped"


class ApplyFailed(SutureError):
    """A step of a fix failed. ``undone`` says whether what was already done has been put back."""

    def __init__(self, message: str, *, undone: bool) -> None:
        self.undone = undone
        super().__init__(message)


class VerifyFailed(SutureError):
    """The fix was applied and the rule still does not pass."""
