"""The arithmetic of a rate budget: what may be sent, what a throttle cuts, how it grows back.

Pure: every method is told the time, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

CUT = 0.7  # what the first throttle leaves of the rate that was achieved
BELOW_GOODPUT = 0.9  # where a further cut lands: just under what the cloud has answered
DEEPEST = 0.5  # a single cut leaves nearly this much of the rate
RECOVERY = 3.0  # seconds until a cut rate is back where the cloud began to throttle
FORGOTTEN = 5.0  # so many recoveries without a cut, and room to spare: the cut is over
SLOWEST = 0.5  # calls a second that no cut goes below: somebody has to find out
CUT_BURST = 0.1  # a cut budget may send what it earns in this time at once
LONGEST_PAUSE = 300.0  # a cloud that asks for more is asked again after this
DRY_SECONDS = 10.0  # a throttle this long ago says nothing about now
TOLERATED = 0.1  # the share of throttled answers that calls for no further cut
SAMPLE = 20  # answers that make a share worth believing
SHORTEST_WINDOW, LONGEST_WINDOW = 1.0, 2.0
RESPONSE = 5.0  # a cut that helps has helped within this
NO_RESPONSE = 0.6  # more than this part of the throttles left: it has not helped
NOISE = 0.35  # a share up to this may have nothing to do with our rate
NOISE_TOLERATED = 1.5
NOISE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` calls at once, ``per_second`` in the long run."""

    per_second: float
    burst: float

    def among(self, holders: int) -> Rate:
        """The equal share of one of ``holders``. Each may always send one call."""
        return Rate(self.per_second / holders, max(1.0, self.burst / holders))


UNLIMITED = Rate(inf, inf)


class Drought:
    """How long an account has throttled whatever it was asked, service after service.

    Each service has a rate and a patience of its own, and the rules ask some thirty: an account
    that answers none of them is not waited for thirty times.
    """

    __slots__ = ("_since", "_until")

    def __init__(self) -> None:
        self._since: float | None = None
        self._until = 0.0

    def throttled(self, now: float) -> None:
        if self.seconds(now) is None:
            self._since = now
        self._until = now

    def answered(self) -> None:
        if self._since is not None:
            self._since = None

    def seconds(self, now: float) -> float | None:
        """Seconds since the first throttle after which nothing else was answered, or None."""
        if self._since is None or now - self._until > DRY_SECONDS:
            return None
        return now - self._since


class AdaptiveRate:
    """A token bucket that starts at ``limit`` and learns from throttled answers.

    The first throttle cuts the rate to CUT of what was achieved. From then on the share of
    throttled answers decides: above TOLERATED, the rate falls to just under the rate of good
    answers. In between it grows along a cubic: fast to where the cloud throttled, slowly past it,
    then faster. All throttles of calls that were sent before a cut belong to that cut.

    Throttles that a cut does not make fewer do not come from our rate: up to the share NOISE they
    are left to retrying, for a cut would only slow the scan.
    """

    __slots__ = (
        "_burst",
        "_cut_at",
        "_cut_to",
        "_dry_since",
        "_dry_successes",
        "_dry_until",
        "_epoch",
        "_filled_at",
        "_good",
        "_holders",
        "_limit",
        "_noise",
        "_noise_until",
        "_paused_until",
        "_peak",
        "_per_second",
        "_previous",
        "_sent",
        "_share_before",
        "_throttled",
        "_tokens",
        "_whole_limit",
        "_window_from",
        "free",
        "successes",
    )

    def __init__(self, limit: Rate = UNLIMITED, now: float = 0.0) -> None:
        self._whole_limit = self._limit = limit
        self._holders = 1
        self._per_second, self._burst = limit.per_second, limit.burst
        self._tokens = limit.burst
        self._filled_at = self._window_from = now
        self._paused_until = -inf
        self._epoch = 1
        self._sent = self._good = self._throttled = 0
        self._previous = 0.0  # calls a second in the window before this one
        self._peak = 0.0  # where the cloud throttled; 0 while no cut is in force
        self._cut_at = -inf
        self._cut_to = 0.0
        self._share_before = 1.0
        self._noise, self._noise_until = 0.0, -inf
        # The first and the last throttle of a stretch in which nothing was answered.
        self._dry_since = self._dry_until = -inf
        self._dry_successes = -1
        self.free = limit.per_second == inf  # nothing to compute: every call may go
        self.successes = 0  # answers that were not throttles, ever

    # --- Calls -----------------------------------------------------------------------------------

    def take(self, now: float) -> int:
        """Send one call: the number of the epoch it belongs to, or 0 where there is no room."""
        if now - self._window_from > SHORTEST_WINDOW:
            self._next_window(now)
        if self.free:
            self._sent += 1
            return self._epoch
        self._refill(now)
        if now < self._paused_until:
            return 0
        # Sums of small floats: without the allowance a wait computed to the dot falls short.
        if self._tokens < 1.0 - 1e-9:
            return 0
        self._tokens -= 1.0
        self._sent += 1
        return self._epoch

    def wait(self, now: float) -> float:
        """Seconds until the next call may be sent, if no other is sent before."""
        if self.free:
            return 0.0
        self._refill(now)
        start = max(now, self._paused_until)
        return start - now + max(0.0, 1.0 - self._tokens) / self._per_second

    def answered(self, epoch: int) -> None:
        """A call of ``epoch`` got an answer that is no throttle."""
        self.successes += 1
        if epoch == self._epoch:
            self._good += 1

    def throttled(self, epoch: int, now: float, retry_after: float = 0.0) -> bool:
        """A call of ``epoch`` was throttled. Returns whether this cut the rate."""
        if self.dry(now) is None:
            self._dry_since, self._dry_successes = now, self.successes
        self._dry_until = now
        cut = epoch == self._epoch and self._cuts(now)
        if retry_after > 0.0 and self._peak and (cut or now >= self._noise_until):
            self._refill(now)
            until = now + min(retry_after, LONGEST_PAUSE)
            if until > self._paused_until:
                # What is earned, and the growth, begin when the pause ends.
                self._paused_until = self._cut_at = self._window_from = until
        return cut

    def dry(self, now: float) -> float | None:
        """Seconds since the first throttle after which nothing else was answered, or None."""
        if self.successes != self._dry_successes or now - self._dry_until > DRY_SECONDS:
            return None
        return now - self._dry_since

    def paused(self, now: float) -> float:
        """Seconds that the cloud asked to be left alone for."""
        return max(0.0, self._paused_until - now)

    # --- State -----------------------------------------------------------------------------------

    def per_second(self, now: float) -> float:
        """The rate in force; infinite where there is none."""
        if not self.free:
            self._refill(now)
        return self._per_second

    def cut_age(self, now: float) -> float | None:
        """Seconds since the cut that is in force, or None."""
        return max(0.0, now - self._cut_at) if self._peak else None

    def idle(self, now: float, seconds: float) -> bool:
        """Nothing sent for ``seconds``, and nothing worth remembering."""
        if not self.free:
            self._refill(now)
        return now - self._window_from > seconds and not self._peak and self._tokens >= self._burst

    # --- Between processes -----------------------------------------------------------------------

    def share(self, holders: int, now: float) -> None:
        """Take the equal share of one of ``holders`` of this budget."""
        if holders == self._holders:
            return
        if not self.free:
            self._refill(now)
        before, self._holders = self._holders, holders
        self._limit = self._whole_limit.among(holders)
        if self._peak:
            scale = before / holders
            self._peak *= scale
            self._cut_to = max(SLOWEST, self._cut_to * scale)
            self._grow(now)
        else:
            self._per_second, self._burst = self._limit.per_second, self._limit.burst
        self._tokens = min(self._tokens, self._burst)

    def adopt(self, per_second: float, cut_at: float, now: float) -> bool:
        """Another holder was cut to ``per_second`` at ``cut_at``. Returns whether it was news."""
        if cut_at <= self._cut_at or per_second >= self.per_second(now):
            return False
        self._cut(per_second, per_second / BELOW_GOODPUT, now)
        return True

    # --- Inside ----------------------------------------------------------------------------------

    def _refill(self, now: float) -> None:
        start = max(self._filled_at, self._paused_until)
        if now <= start:
            return
        # At the rate of the last look: never more than was allowed, for a rate only grows.
        earned = self._tokens + (now - start) * self._per_second
        self._tokens = min(self._burst, earned)
        self._filled_at = now
        if self._peak:
            self._grow(now, spare=earned - self._burst)

    def _grow(self, now: float, spare: float = 0.0) -> None:
        recoveries = max(0.0, now - self._cut_at) / RECOVERY
        grown = self._peak + (self._peak - self._cut_to) * (recoveries - 1.0) ** 3
        # With calls to spare nobody waits, and none rush in when the cut is over.
        if grown >= self._limit.per_second or (recoveries >= FORGOTTEN and spare >= 1.0):
            self._peak = 0.0
            self._per_second, self._burst = self._limit.per_second, self._limit.burst
            self.free = self._per_second == inf
            if self.free:
                self._tokens = inf
        else:
            self._per_second = max(SLOWEST, grown)
            self._burst = max(1.0, min(self._limit.burst, self._per_second * CUT_BURST))

    def _cuts(self, now: float) -> bool:
        self._throttled += 1
        elapsed = max(now - self._window_from, 0.1)
        if not self._peak:
            achieved = min(self._achieved(now, elapsed), self._limit.per_second)
            self._cut(CUT * achieved, achieved, now)
            self._share_before = 1.0
            return True
        answers = self._good + self._throttled
        if self._throttled < 2 or (answers < SAMPLE and elapsed < SHORTEST_WINDOW):
            return False
        share = self._throttled / answers
        if share <= TOLERATED:
            return False
        if now < self._noise_until and share <= self._noise:
            self._noise_until = now + NOISE_SECONDS
            return False
        recent = now - self._cut_at < RESPONSE
        if recent and NO_RESPONSE * self._share_before <= share <= NOISE:
            self._noise, self._noise_until = NOISE_TOLERATED * share, now + NOISE_SECONDS
            return False
        # A burst has emptied the cloud's bucket: what it answered since may say too little.
        per_second = self.per_second(now)
        goodput = min(max(self._good / elapsed, DEEPEST * per_second), per_second)
        self._cut(BELOW_GOODPUT * goodput, goodput, now)
        self._share_before = share
        self._noise_until = -inf
        return True

    def _cut(self, per_second: float, peak: float, now: float) -> None:
        if not self.free:
            self._refill(now)
        self.free = False
        self._epoch += 1
        self._cut_to = max(SLOWEST, per_second)
        self._peak = max(peak, self._cut_to / BELOW_GOODPUT)
        self._cut_at = self._window_from = self._filled_at = now
        self._tokens = 0.0
        self._sent = self._good = self._throttled = 0
        self._previous = 0.0
        self._grow(now)

    def _achieved(self, now: float, elapsed: float) -> float:
        """Calls a second lately: of this window, or of the one before while this one is young."""
        if elapsed < SHORTEST_WINDOW / 2 and self._previous:
            return self._previous
        return self._sent / elapsed

    def _next_window(self, now: float) -> None:
        elapsed = now - self._window_from
        if elapsed < LONGEST_WINDOW and self._good + self._throttled < SAMPLE:
            return
        self._previous = self._sent / elapsed if elapsed <= 2 * LONGEST_WINDOW else 0.0
        self._window_from = now
        self._sent = self._good = self._throttled = 0


# --- What processes tell each other ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a process says of a budget: that it uses it, and the cut in force, if any."""

    key: str
    per_second: float | None = None
    cut_age: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a process learns of a budget: how many hold it, itself included, and what the others'
    cuts left each of them, ``cut_age`` seconds ago, if any was cut."""

    key: str
    holders: int
    per_second: float | None = None
    cut_age: float | None = None
