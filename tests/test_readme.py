"""The README tells the truth where a machine can check it."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deployments.generated import sections
from tasks.inventory import parse_inventory
from tasks.policy import parse_policies

sys.path.insert(0, str(Path(__file__).parent / "benchmarks" / "fleet"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parent / "benchmarks" / "react"))

import react_report
from report import markdown

FLEET, REACT = (Path(__file__).parent / "benchmarks" / name for name in ("fleet", "react"))
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "section"), sections().items())
def test_what_comes_from_the_rule_table_is_the_rule_table(name: str, section: str) -> None:
    found = re.search(rf"<!-- {name}:.*?-->\n(.*?)<!-- /{name} -->", README, re.DOTALL)
    assert found
    assert found[1] == section


def test_the_example_files_can_be_used() -> None:
    inventory, policies = (textwrap.dedent(text) for text in _blocks("yaml"))
    assert parse_inventory(inventory).source("contoso").name == "contoso"
    assert [policy.name for policy in parse_policies(policies)] == [
        "ssh-in-dev",
        "ask-about-the-rest",
    ]


def test_every_deployment_it_names_is_deployed() -> None:
    document = YAML(typ="safe").load(Path(__file__).parents[1] / "prefect.yaml")
    names = {deployment["name"] for deployment in document["deployments"]}
    assert names == {
        "nightly",
        "scan-share",
        "triage",
        "reconcile",
        "remediate",
        "restore",
        "react",
        "housekeeping",
    }


def test_the_benchmark_table_is_the_recorded_run() -> None:
    record = json.loads((FLEET / "fleet.json").read_text(encoding="utf-8"))
    found = re.search(r"<!-- fleet:.*?-->\n(.*?)<!-- /fleet -->", README, re.DOTALL)
    assert found
    assert found[1].strip() == markdown(record).strip()
    assert (FLEET / "fleet.svg").is_file()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_figures_of_reacting_are_the_recorded_run() -> None:
    record = json.loads((REACT / "react.json").read_text(encoding="utf-8"))
    found = re.search(r"<!-- react:.*?-->\n(.*?)<!-- /react -->", README, re.DOTALL)
    assert found
    assert found[1].strip() == react_report.markdown(record).strip()
