"""Every control that CIS marks Automated is answered by a rule, or the table says why not."""

from __future__ import annotations

from dataclasses import replace

from tasks.rules import RULES
from tasks.rules.benchmark import AUTOMATED, UNANSWERED, controls, markdown_controls


def test_every_control_has_rules_or_a_reason_and_never_both() -> None:
    known = controls(RULES)
    assert [one.id for one in known if bool(one.rules) == bool(one.reason)] == []
    assert {one.id for one in known if one.reason} == UNANSWERED.keys()


def test_no_control_is_named_twice_or_made_up() -> None:
    numbers = {name: text.split() for name, text in AUTOMATED.items()}
    assert {name: len(each) for name, each in numbers.items()} == {
        "cis-aws-6.0": 35,
        "cis-azure-5.0": 93,
    }
    assert all(len(set(each)) == len(each) for each in numbers.values())


def test_a_control_that_loses_its_rule_is_told() -> None:
    rules = [replace(one, aka=()) if "cis-aws-6.0:2.7" in one.aka else one for one in RULES]
    (lost,) = [one for one in controls(rules) if not one.rules and not one.reason]
    assert lost.id == "cis-aws-6.0:2.7"
    assert "34 of 35 of `cis-aws-6.0`" in markdown_controls(rules)


def test_the_readme_lists_what_is_not_answered() -> None:
    text = markdown_controls(RULES)
    assert "35 of 35 of `cis-aws-6.0`, 86 of 93 of `cis-azure-5.0`" in text
    assert all(f"- `{control}`: {reason}" in text for control, reason in UNANSWERED.items())
