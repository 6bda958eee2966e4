"""What the listener measures, as Prometheus reads it."""

from __future__ import annotations

import re

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tasks.model import Cloud
from tasks.reacting import metrics as reacting_metrics
from tasks.reacting.metrics import DECISIONS, STAGES, Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def everything(metrics: Metrics) -> None:
    metrics.messages_came(Cloud.AWS, 10)
    metrics.decided(Cloud.AWS, "taken")
    metrics.reported(Cloud.AWS, 90.0)
    metrics.taken(Cloud.AWS, 0.07)
    metrics.rescanned(Cloud.AWS, "completed", 0.4)
    metrics.remediation_ended(Cloud.AWS, "fixed")
    metrics.fixed(Cloud.AWS, 1.2)
    metrics.lags(Cloud.AWS, 3.5)
    metrics.busy_with(Cloud.AWS, in_flight=2, waiting=7)
    metrics.queue_holds("acme", waiting=40, in_hand=5)


def test_what_happened_is_counted(metrics: Metrics) -> None:
    everything(metrics)

    assert value(metrics, "suture_react_messages_total", cloud="aws") == 10
    assert value(metrics, "suture_react_events_total", cloud="aws", decision="taken") == 1
    assert value(metrics, "suture_react_rescans_total", cloud="aws", outcome="completed") == 1
    assert value(metrics, "suture_react_remediations_total", cloud="aws", state="fixed") == 1
    assert value(metrics, "suture_react_lag_seconds", cloud="aws") == 3.5
    assert value(metrics, "suture_react_in_flight", cloud="aws") == 2
    assert value(metrics, "suture_react_waiting", cloud="aws") == 7
    assert value(metrics, "suture_react_queue_messages", source="acme", state="waiting") == 40
    assert value(metrics, "suture_react_queue_messages", source="acme", state="in_hand") == 5


def test_each_stage_is_timed(metrics: Metrics) -> None:
    everything(metrics)

    for stage, seconds in zip(STAGES, (90.0, 0.07, 0.4, 1.2), strict=True):
        labels = {"cloud": "aws", "stage": stage}
        assert value(metrics, "suture_react_seconds_sum", **labels) == seconds
        assert value(metrics, "suture_react_seconds_bucket", **labels, le="120.0") == 1
    queue = {"cloud": "aws", "stage": "queue"}
    assert value(metrics, "suture_react_seconds_bucket", **queue, le="0.05") == 0
    assert value(metrics, "suture_react_seconds_bucket", **queue, le="0.1") == 1


def test_a_clock_that_is_ahead_makes_no_negative_time(metrics: Metrics) -> None:
    metrics.taken(Cloud.AZURE, -0.3)
    metrics.lags(Cloud.AZURE, -0.3)

    assert value(metrics, "suture_react_seconds_sum", cloud="azure", stage="queue") == 0
    assert value(metrics, "suture_react_lag_seconds", cloud="azure") == 0


def test_what_a_cloud_does_not_say_is_not_made_up(metrics: Metrics) -> None:
    metrics.queue_holds("contoso", waiting=3)

    assert value(metrics, "suture_react_queue_messages", source="contoso", state="in_hand") is None


def test_every_decision_is_there_from_the_start_and_no_other_is_taken(metrics: Metrics) -> None:
    for cloud in Cloud:
        assert value(metrics, "suture_react_messages_total", cloud=cloud) == 0
        for decision in DECISIONS:
            assert value(metrics, "suture_react_events_total", cloud=cloud, decision=decision) == 0
    with pytest.raises(ValueError, match="decision is maybe"):
        metrics.decided(Cloud.AWS, "maybe")


def test_two_listeners_in_one_process_share_nothing(metrics: Metrics) -> None:
    everything(metrics)

    assert value(Metrics(), "suture_react_messages_total", cloud="aws") == 0
    assert "suture_react" not in generate_latest(REGISTRY).decode()


def test_the_table_names_every_metric_with_its_type_and_labels(metrics: Metrics) -> None:
    everything(metrics)
    told = {
        name: (kind, tuple(labels.split(", ")))
        for name, kind, labels in re.findall(
            r"^(suture_\w+) +(\w+) +(\w+(?:, \w+)*)  ", reacting_metrics.__doc__ or "", re.MULTILINE
        )
    }

    there = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        if not family.samples or family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        there[name] = (family.type, tuple(key for key in family.samples[0].labels if key != "le"))
    assert told == there
