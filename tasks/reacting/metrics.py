"""What the listener counts and measures, for Prometheus.

=================================  =========  ===============  =====================================
name                               type       labels           what
=================================  =========  ===============  =====================================
suture_react_messages_total        counter    cloud            messages taken from queues, webhooks
suture_react_events_total          counter    cloud, decision  events, by what was decided on each
suture_react_rescans_total         counter    cloud, outcome   re-scans of resources
suture_react_remediations_total    counter    cloud, state     remediations begun, by their end
suture_react_seconds               histogram  cloud, stage     how long each stage took
suture_react_lag_seconds           gauge      cloud            age of the oldest event not done
suture_react_in_flight             gauge      cloud            resources that are being re-scanned
suture_react_waiting               gauge      cloud            resources that wait for their turn
suture_react_queue_messages        gauge      source, state    messages in a queue, about
=================================  =========  ===============  =====================================

Decisions: taken, duplicate (seen before), read (changed nothing), failed_call, own_write (it was
Suture), not_watched (no rule looks there), poison (nobody can read it).

Stages: cloud (from the call to the event in the queue: the cloud's own time), queue (from there to
taken), rescan, fix (from the event in the queue to a fix that was verified).

States of messages: waiting, in_hand (of some listener; not on Azure, which does not say).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tasks.model import Cloud

DECISIONS = ("taken", "duplicate", "read", "failed_call", "own_write", "not_watched", "poison")
STAGES = ("cloud", "queue", "rescan", "fix")
# Fine where a reaction is meant to be, up to two minutes; then the ages of events that a cloud
# reported late or that waited while nobody listened.
BUCKETS = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0),
    *(300.0, 900.0, 3600.0, 21600.0, 86400.0),
)


class Metrics:
    """One listener's, in a registry of its own. Times are in seconds; safe from any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._messages = Counter(
            "suture_react_messages",
            "Messages taken from queues and webhooks",
            ["cloud"],
            registry=registry,
        )
        self._events = Counter(
            "suture_react_events",
            "Events, by what was decided on each",
            ["cloud", "decision"],
            registry=registry,
        )
        self._rescans = Counter(
            "suture_react_rescans",
            "Re-scans of resources, by their outcome",
            ["cloud", "outcome"],
            registry=registry,
        )
        self._remediations = Counter(
            "suture_react_remediations",
            "Remediations that events began, by the state they ended in",
            ["cloud", "state"],
            registry=registry,
        )
        self._seconds = Histogram(
            "suture_react_seconds",
            "How long each stage took",
            ["cloud", "stage"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._lag = Gauge(
            "suture_react_lag_seconds",
            "Age of the oldest event that is not done, 0 if all are",
            ["cloud"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "suture_react_in_flight",
            "Resources that are being re-scanned",
            ["cloud"],
            registry=registry,
        )
        self._waiting = Gauge(
            "suture_react_waiting",
            "Resources that wait to be re-scanned",
            ["cloud"],
            registry=registry,
        )
        self._queue_messages = Gauge(
            "suture_react_queue_messages",
            "Messages in a queue, about",
            ["source", "state"],
            registry=registry,
        )
        # From the start at 0: a rate has no first step otherwise.
        for cloud in Cloud:
            self._messages.labels(cloud)
            for decision in DECISIONS:
                self._events.labels(cloud, decision)

    def messages_came(self, cloud: Cloud, count: int = 1) -> None:
        """So many messages were taken from a queue or came by a webhook."""
        self._messages.labels(cloud).inc(count)

    def decided(self, cloud: Cloud, decision: str) -> None:
        """What becomes of an event is decided: one of DECISIONS, else ValueError."""
        if decision not in DECISIONS:
            raise ValueError(f"decision is {decision}. Use one of {', '.join(DECISIONS)}.")
        self._events.labels(cloud, decision).inc()

    def reported(self, cloud: Cloud, seconds: float) -> None:
        """The cloud put an event into the queue so long after the call."""
        self._took(cloud, "cloud", seconds)

    def taken(self, cloud: Cloud, seconds: float) -> None:
        """An event was taken up so long after it was in the queue."""
        self._took(cloud, "queue", seconds)

    def rescanned(self, cloud: Cloud, outcome: str, seconds: float) -> None:
        """A resource was scanned again, which took so long and came out so."""
        self._rescans.labels(cloud, outcome).inc()
        self._took(cloud, "rescan", seconds)

    def remediation_ended(self, cloud: Cloud, state: str) -> None:
        """A remediation that an event began is over, or waits for its approval."""
        self._remediations.labels(cloud, state).inc()

    def fixed(self, cloud: Cloud, seconds: float) -> None:
        """A fix was verified so long after its event was in the queue."""
        self._took(cloud, "fix", seconds)

    def lags(self, cloud: Cloud, seconds: float) -> None:
        """How old the oldest event is that is not done; 0: all are."""
        self._lag.labels(cloud).set(max(seconds, 0.0))

    def busy_with(self, cloud: Cloud, *, in_flight: int, waiting: int) -> None:
        """So many resources are being scanned again, and so many wait for it."""
        self._in_flight.labels(cloud).set(in_flight)
        self._waiting.labels(cloud).set(waiting)

    def queue_holds(self, source: str, *, waiting: int, in_hand: int | None = None) -> None:
        """So many messages are in the queue of an inventory entry; None: the cloud does not say."""
        self._queue_messages.labels(source, "waiting").set(waiting)
        if in_hand is not None:
            self._queue_messages.labels(source, "in_hand").set(in_hand)

    def _took(self, cloud: Cloud, stage: str, seconds: float) -> None:
        # Clocks differ: what seems to have come before it was sent took no time.
        self._seconds.labels(cloud, stage).observe(max(seconds, 0.0))
