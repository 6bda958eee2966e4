"""Infrastructure and security services: what a fix refuses, and what it leaves as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tasks.errors import BadAnswer, BadInput
from tasks.model import Resource, Verdict
from tasks.rules import rule


@pytest.fixture
def fails(table: Any) -> Any:
    """``fails(rule, **parts)``: its first failing example, with other parts."""

    def make(rule_id: str, **parts: Any) -> Resource:
        row = rule(rule_id)
        config = copy.deepcopy(table.examples[rule_id][1][0])
        found: Resource = table.resource(row, {**config, **parts})
        assert row.judge(found) == (Verdict.FAIL, "")
        return found

    return make


def fix(resource: Resource, rule_id: str, **values: Any) -> Any:
    its_rule = rule(rule_id)
    assert its_rule.fix is not None
    return its_rule.fix(resource, values)


SOME = {"allSupported": False, "resourceTypes": ["AWS::S3::Bucket"]}
ALL = {"allSupported": True}


@pytest.mark.parametrize(
    ("recorders", "status"),
    [
        ([], []),
        ([{"name": "a", "recordingGroup": SOME}], [{"name": "a", "recording": True}]),
        (  # a service's own recorder is no recorder of everything
            [{"name": "a", "recordingGroup": ALL, "servicePrincipal": "x.amazonaws.com"}],
            [{"name": "a", "recording": True}],
        ),
    ],
)
def test_a_recorder_is_started_only_where_one_of_everything_is_stopped(
    fails: Any, recorders: list[Any], status: list[Any]
) -> None:
    name = "aws_config_recorder_everything_recorded"
    with pytest.raises(BadInput, match="no recorder of all types"):
        fix(fails(name, Recorders=recorders, Status=status), name)


def test_a_second_analyzer_of_the_account_is_not_made(fails: Any) -> None:
    name = "aws_accessanalyzer_analyzers_external_access_watched"
    disabled = [{"name": "own", "type": "ACCOUNT", "status": "DISABLED"}]
    with pytest.raises(BadInput, match="a region has only one"):
        fix(fails(name, Analyzers=disabled), name)


EVENTS = "aws_cloudtrail_trail_s3_writes_recorded"
OWN = {"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": []}
RICHER = {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}


@pytest.mark.parametrize(
    "selectors",
    [
        {"EventSelectors": [OWN] * 5, "AdvancedEventSelectors": []},
        {"EventSelectors": [], "AdvancedEventSelectors": []},
        {"EventSelectors": [OWN], "AdvancedEventSelectors": [RICHER]},
    ],
)
def test_event_selectors_that_cannot_take_one_more_are_left(fails: Any, selectors: Any) -> None:
    with pytest.raises(BadInput, match="Selectors"):
        fix(fails(EVENTS, Selectors=selectors), EVENTS)


def test_every_event_selector_is_sent_again(fails: Any) -> None:
    old = [{**OWN, "ExcludeManagementEventSources": ["kms.amazonaws.com"]}, OWN]
    trail = fails(EVENTS, Selectors={"EventSelectors": old, "AdvancedEventSelectors": []})
    (step,) = fix(trail, EVENTS)
    assert step.call.params["EventSelectors"][:2] == old
    assert step.undo[0].params["EventSelectors"] == old


@pytest.mark.parametrize("key", [None, "", "my secret key", "arn:aws:s3:::key", "alias/", 7])
def test_a_key_that_is_none_is_refused_and_not_repeated(fails: Any, key: Any) -> None:
    name = "aws_cloudtrail_trail_kms_encrypted"
    with pytest.raises(BadAnswer) as caught:
        fix(fails(name), name, kms_key=key)
    assert "my secret key" not in str(caught.value)


def test_databases_that_cannot_take_a_setting_are_refused(fails: Any) -> None:
    custom = "aws_rds_instance_minor_upgrades_taken"
    with pytest.raises(BadInput, match="RDS Custom"):
        fix(fails(custom, Engine="custom-oracle-ee"), custom)
    group = "aws_rds_parameter_group_tls_required"
    with pytest.raises(BadInput, match="nobody can change"):
        fix(fails(group, DBParameterGroupName="default.postgres14"), group)


def test_an_engine_without_a_parameter_for_tls_is_not_judged(table: Any) -> None:
    row = rule("aws_rds_parameter_group_tls_required")
    config = {**table.examples[row.id][1][0], "Tls": None}
    assert row.judge(table.resource(row, config))[0] is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("aws_opensearch_domain_node_to_node_encrypted", "Elasticsearch_5.6"),
        ("aws_opensearch_domain_encrypted_at_rest", "Elasticsearch_6.5"),
    ],
)
def test_old_domains_are_not_asked_to_encrypt(fails: Any, name: str, engine: str) -> None:
    with pytest.raises(BadInput, match=engine):
        fix(fails(name, EngineVersion=engine), name)


def test_visitors_are_sent_only_where_somebody_answers(fails: Any) -> None:
    name = "aws_elbv2_listener_https_only"
    with pytest.raises(BadInput, match="no HTTPS listener"):
        fix(fails(name, HttpsPorts=[]), name)
    forward = {"Type": "forward", "TargetGroupArn": "arn:…"}
    with pytest.raises(BadInput, match="rules of this listener"):
        fix(fails(name, RuleActions=[[forward]]), name)


def test_a_distribution_keeps_its_behaviours_in_order_and_its_headers_out(fails: Any) -> None:
    name = "aws_cloudfront_distribution_https_only"
    distribution = fails(name)
    (step,) = fix(distribution, name)
    before = distribution.config["DistributionConfig"]
    after = step.call.params["DistributionConfig"]
    paths = [one["PathPattern"] for one in after["CacheBehaviors"]["Items"]]
    assert paths == [one["PathPattern"] for one in before["CacheBehaviors"]["Items"]]
    assert step.undo[0].params["DistributionConfig"] == before
    with_header = copy.deepcopy(before)
    header = {"HeaderName": "X-Origin", "HeaderValue": "(not kept)"}
    with_header["Origins"]["Items"][0]["CustomHeaders"] = {"Quantity": 1, "Items": [header]}
    with pytest.raises(BadInput, match="custom headers"):
        fix(fails(name, DistributionConfig=with_header), name)


def test_a_key_whose_replicas_go_first_waits_to_be_deleted_as_well(fails: Any) -> None:
    name = "aws_kms_key_not_pending_deletion"
    (step,) = fix(fails(name, KeyState="PendingReplicaDeletion"), name)
    assert step.call.operation == "CancelKeyDeletion"
    assert step.undo[0].params["PendingWindowInDays"] == 30
