"""Contracts that every row of the rule table keeps, walked over the whole table."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clouds.session_policy import permission_of
from tasks.errors import BadInput, SutureError
from tasks.model import Cloud, Rule, Verdict
from tasks.rules import RULES, rule
from tasks.rules.table import lint, markdown_table

every_rule = pytest.mark.parametrize("row", RULES, ids=lambda one: one.id)


fixing = pytest.mark.parametrize(
    "row", [one for one in RULES if one.fix is not None], ids=lambda one: one.id
)


def test_table_is_well_formed() -> None:
    assert lint(RULES) == []


def test_lint_finds_what_is_wrong() -> None:
    good = RULES[0]
    bad = replace(
        good,
        id="Bad-Id",
        writes=(),
        guide="",
        aka=("someone:else!",),
        events=("PutThing",),
    )
    found = "\n".join(lint([good, good, bad]))
    for words in ("more than once", "the id is not", "needs writes", "guide", "reference", "event"):
        assert words in found


def test_every_rule_has_examples(table: Any) -> None:
    assert table.examples.keys() == {one.id for one in RULES}
    assert table.kinds.keys() == {one.kind for one in RULES}


def test_unknown_rule_is_bad_input() -> None:
    assert rule(RULES[3].id) is RULES[3]
    with pytest.raises(BadInput, match="not in the rule table"):
        rule("aws_s3_bucket_painted_blue")


def test_markdown_table_lists_every_rule() -> None:
    lines = markdown_table(RULES).splitlines()
    assert len(lines) == len(RULES) + 2
    assert len({line.count("|") for line in lines}) == 1
    assert all(any(f"`{one.id}`" in line for line in lines) for one in RULES)


@every_rule
def test_guide_is_complete(row: Rule, table: Any) -> None:
    for head in (
        "What it means",
        "Why it matters",
        "CLI",
        "Terraform",
        "fix does",
        "break",
        "back",
    ):
        assert head in row.guide, head
    assert "Console" in row.guide or "Portal" in row.guide
    assert 20 <= len(row.guide.splitlines()) <= 60
    assert "$" not in row.guide.replace("${aws_s3_bucket", "").replace("$web", "")


@every_rule
def test_both_verdicts_exist(row: Rule, table: Any) -> None:
    passing, failing, _ = table.examples[row.id]
    assert passing
    assert failing
    assert {row.judge(table.resource(row, one)) for one in passing} == {(Verdict.PASS, "")}
    assert {row.judge(table.resource(row, one)) for one in failing} == {(Verdict.FAIL, "")}


@every_rule
def test_missing_data_is_unknown(row: Rule, table: Any) -> None:
    for config in itertools.chain(*table.examples[row.id][:2]):
        without = {
            name: value for name, value in config.items() if name != table.examples[row.id][2]
        }
        verdict, reason = row.judge(table.resource(row, without))
        assert verdict is Verdict.UNKNOWN
        assert table.examples[row.id][2] in reason
        verdict, reason = row.judge(
            table.resource(row, config, {table.examples[row.id][2]: "AccessDenied"})
        )
        assert (verdict, reason) == (Verdict.UNKNOWN, f"{table.examples[row.id][2]} AccessDenied")


@every_rule
@pytest.mark.parametrize("junk", ["", "text", 7, 1.5, {"odd": []}, [7], [[]], [None], 1])
def test_junk_is_never_a_pass(row: Rule, table: Any, junk: Any) -> None:
    config = {**table.examples[row.id][0][0], table.examples[row.id][2]: junk}
    assert row.judge(table.resource(row, config))[0] is not Verdict.PASS


@fixing
def test_fix_makes_it_pass_and_undo_restores(
    row: Rule, table: Any, apply: Any, undo: Any, snapshot: Any
) -> None:
    assert row.fix is not None
    for config in table.examples[row.id][1]:
        before = table.resource(row, config)
        steps = row.fix(before, table.values(row))
        assert steps
        after = apply(before, steps)
        assert row.judge(after) == (Verdict.PASS, "")
        assert row.fix(after, table.values(row)) == ()
        assert snapshot(undo(after, steps)) == snapshot(row.undone(before))
        assert before == table.resource(row, config), "a planner must not change what it is given"


@fixing
def test_fix_leaves_a_good_resource_alone(row: Rule, table: Any) -> None:
    assert row.fix is not None
    for config in table.examples[row.id][0]:
        assert row.fix(table.resource(row, config), table.values(row)) == ()


@fixing
def test_steps_stay_within_what_the_rule_declares(row: Rule, table: Any) -> None:
    """The permission of every call and every undo is among the rule's writes."""
    assert row.fix is not None
    writes = {name.lower() for name in row.writes}
    for config in table.examples[row.id][1]:
        for step in row.fix(table.resource(row, config), table.values(row)):
            assert step.action in row.writes
            assert step.changes
            assert step.undo
            for call in (step.call, *step.undo):
                assert permission_of(call).lower() in writes
                json.dumps(call.params)


@cache
def sdk_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"))


@fixing
def test_calls_are_ones_the_sdk_knows(row: Rule, table: Any) -> None:
    """botocore itself checks names and types of every AWS call and undo."""
    assert row.fix is not None
    values = table.values(row)
    if "allowed_cidrs" in values:
        values["allowed_cidrs"] = ("10.1.0.0/16", "2001:db8::/32")
    for config in table.examples[row.id][1]:
        for step in row.fix(table.resource(row, config), values):
            for call in (step.call, *step.undo):
                if call.cloud is Cloud.AZURE:
                    assert call.operation in {"PUT", "PATCH", "DELETE"}
                    assert call.target.startswith(table.kinds[row.kind]["id"])
                    continue
                shape = sdk_model(call.service).operation_model(call.operation).input_shape
                if shape is None:
                    assert not call.params
                    continue
                report = ParamValidator().validate(call.params, shape)
                assert not report.has_errors(), report.generate_report()


OPERATIONS = json.loads((Path(__file__).parent / "operations.json").read_text("utf-8"))
SERVICES = {
    "access-analyzer": ("accessanalyzer",),
    "elasticfilesystem": ("efs",),
    "elasticloadbalancing": ("elb", "elbv2"),
    "es": ("opensearch", "es"),
}


@every_rule
def test_events_are_writes_that_the_clouds_log(row: Rule) -> None:
    """A rule whose event no cloud ever sends would never be looked at again in time."""
    for event in row.events:
        if row.cloud is Cloud.AZURE:
            kind, _, verb = event.rpartition("/")
            assert verb in OPERATIONS["azure"][kind].split(), event
            assert verb != "read"
        elif event not in OPERATIONS["cloudtrail"]:
            service, _, name = event.partition(":")
            models = [sdk_model(one) for one in SERVICES.get(service, (service,))]
            assert any(name in model.operation_names for model in models), event
            assert not name.startswith(("Describe", "Get", "List"))


@every_rule
def test_reads_and_writes_are_operations_of_the_cloud(row: Rule) -> None:
    if row.cloud is Cloud.AZURE:
        for operation in (*row.reads, *row.writes):
            kind, _, verb = operation.rpartition("/")
            assert verb in OPERATIONS["azure"][kind].split(), operation


# --- nothing crashes --------------------------------------------------------------------------

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70000)
    | st.sampled_from(["", "*", "22", "x", "::/0"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.just("id") | st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value that something else could stand in."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_configurations_never_crash_a_rule(table: Any, data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(RULES))
    config = data.draw(st.sampled_from(list(itertools.chain(*table.examples[row.id][:2]))))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([one for one in places(config) if one]))
        config = put(config, path, data.draw(JUNK))
    damaged = table.resource(row, config)
    verdict, reason = row.judge(damaged)
    assert (verdict is Verdict.UNKNOWN) == bool(reason)
    if row.fix is None:
        return
    try:
        steps = row.fix(damaged, table.values(row))
    except SutureError:
        return
    assert verdict is not Verdict.UNKNOWN
    assert bool(steps) == (verdict is Verdict.FAIL)


def test_no_two_rules_of_a_cloud_claim_one_check() -> None:
    for cloud in Cloud:
        named = [name for one in RULES if one.cloud is cloud for name in one.aka]
        twice = {name for name in named if named.count(name) > 1}
        # A benchmark's control may take several rules, as one over many ports does.
        assert {name for name in twice if not name.startswith("cis-")} == set()
