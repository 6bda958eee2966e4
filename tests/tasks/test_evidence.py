"""Evidence holds by itself, says nothing of other fixes, and any tampering with it is found."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.audit import Entry, body_hash, next_entry, said_hash, whose_hash
from tasks.errors import BadInput
from tasks.evidence import EARLIER, FORMAT, bundle, changed, parse_head, problems
from tasks.evidence_page import page
from tasks.model import Call, Change, Cloud, Config, Resource, Step, sha256
from tasks.plan import Plan, plan_json
from tasks.snapshot import content_of

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN, RUN, OTHER = (str(UUID(int=number)) for number in (1, 2, 3))
MARK = "confidential-of-another"
EVIL = "<script src=https://evil.example></script><img src=x onerror=alert(1)>"


def bucket(blocked: bool, name: str = "b") -> Resource:
    return Resource(
        *(Cloud.AWS, "111122223333", "eu", "aws.s3.bucket", "arn:aws:s3:::b", name),
        Config({"PublicAccessBlock": {"BlockPublicAcls": blocked}}),
    )


STEP = Step(
    "s3:PutBucketPublicAccessBlock",
    Call(Cloud.AWS, "s3", "PutPublicAccessBlock", {"Bucket": "b"}),
    (),
    (Change("PublicAccessBlock", EVIL, "on"),),
)
PLAN = Plan(1, "f" * 64, "rule", "Block it", "high", bucket(False), {}, (STEP,))
BEFORE, AFTER = content_of(bucket(False)), content_of(bucket(True))


def snapshot(stage: str, content: str) -> dict[str, Any]:
    return {"stage": stage, "content": sha256(content), "calls": []}


STORY = [
    ("planned", {"run": RUN, "plan": PLAN.hash, "snapshot": snapshot("before", BEFORE)}),
    ("approved", {"plan": PLAN.hash}),
    ("applying", {"plan": PLAN.hash, "snapshot": snapshot("before", BEFORE)}),
    ("remediated", {"message": "Done.", "snapshot": snapshot("after", AFTER)}),
]


def log(others: list[int], *, version: int = 3, own: int = 3) -> list[Entry]:
    """The story with so many entries of others before each of its own, and after the last."""
    chain: list[Entry] = []

    def add(subject: str, action: str, details: dict[str, Any], version: int = 3) -> None:
        last = (chain[-1].number, chain[-1].hash) if chain else None
        chain.append(
            next_entry(
                last,
                at=AT + timedelta(seconds=len(chain)),
                actor="ann",
                action=action,
                subject=subject,
                details=details,
                version=version,
                salt=UUID(int=len(chain)).hex if version > 1 else "",
            )
        )

    for index, (action, details) in enumerate(STORY):
        for _ in range(others[index]):
            add(OTHER, "did", {"what": MARK}, version)
        add(OWN, action, details, own)
    for _ in range(others[-1]):
        add(OTHER, "did", {"what": MARK}, version)
    return chain


def evidence(others: list[int]) -> tuple[dict[str, Any], list[Entry]]:
    chain = log(others)
    segment = chain[others[0] :]
    contents = {sha256(one): one for one in (BEFORE, AFTER)}
    made = bundle(OWN, [OWN, RUN], segment, plan_json(PLAN), contents)
    return json.loads(json.dumps(made)), chain


OTHERS = st.lists(st.integers(0, 2), min_size=5, max_size=5)


@given(OTHERS)
def test_evidence_holds_and_meets_the_heads_that_were_exported(others: list[int]) -> None:
    made, chain = evidence(others)
    assert problems(made) == []
    last_own = max(entry.number for entry in chain if entry.subject == OWN)
    for entry in chain[last_own - 1 :]:
        assert problems(made, (entry.number, entry.hash)) == []
        (wrong,) = problems(made, (entry.number, "0" * 64))
        assert "does not meet" in wrong
    for number in (last_own - 1, chain[-1].number + 1):
        (wrong,) = problems(made, (number, "0" * 64))
        assert "is not between" in wrong


@given(OTHERS)
def test_nothing_of_others_is_in_it(others: list[int]) -> None:
    made, _ = evidence(others)
    assert MARK not in json.dumps(made)
    assert OTHER not in json.dumps(made)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every scalar in it is."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Any, ...]] = []
    for key, part in items:
        here = (*path, key)
        found += paths(part, here) if isinstance(part, dict | list) else [here]
    return found


# Said for people who read the file: neither entries nor the plan's hash hold them.
FREE = {"subjects", "plan"}


@pytest.mark.attack
@given(OTHERS, st.data())
def test_any_single_change_is_found(others: list[int], data: st.DataObject) -> None:
    made, _ = evidence(others)
    path = data.draw(st.sampled_from([one for one in paths(made) if one[0] not in FREE]))
    forged = copy.deepcopy(made)
    place = forged
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    place[path[-1]] = old + 1 if isinstance(old, int) else f"{old}x"
    try:
        assert problems(forged)
    except BadInput:
        assert path[0] in {"format", "entries", "contents", "chain"}


@pytest.mark.attack
@given(OTHERS, st.data())
def test_an_entry_dropped_twice_or_moved_is_found(others: list[int], data: st.DataObject) -> None:
    made, _ = evidence(others)
    index = data.draw(st.integers(0, len(STORY) - 1))
    dropped, doubled = copy.deepcopy(made), copy.deepcopy(made)
    del dropped["entries"][index]
    doubled["entries"].append(doubled["entries"][index])
    assert problems(dropped)
    assert problems(doubled)


def hidden(made: dict[str, Any], chain: list[Entry], index: int, *, whole: bool) -> dict[str, Any]:
    """The evidence without one of its own entries, which is said to be another's."""
    forged = copy.deepcopy(made)
    number = forged["entries"].pop(index)["number"]
    entry = chain[number - 1]
    said = [whose_hash(entry.subject, entry.salt), said_hash(entry)]
    forged["chain"]["between"][str(number)] = body_hash(entry) if whole else said
    if index == 0:  # it begins with the next one, and says nothing of what is before
        first = chain[forged["entries"][0]["number"] - 1]
        forged["chain"]["start"] = {"number": first.number, "prev_hash": first.prev_hash}
        between = forged["chain"]["between"].items()
        forged["chain"]["between"] = {at: one for at, one in between if int(at) > first.number}
    return forged


@pytest.mark.attack
@given(OTHERS, st.integers(0, len(STORY) - 1), st.booleans())
def test_none_of_its_own_entries_passes_for_anothers(
    others: list[int], index: int, whole: bool
) -> None:
    """Such as who approved, or that it failed."""
    made, chain = evidence(others)
    forged = hidden(made, chain, index, whole=whole)
    found = problems(forged, (chain[-1].number, chain[-1].hash))
    words = ("was left out", "does not tell whose it is", "of its plan, is missing")
    assert any(word in one for one in found for word in words)


@pytest.mark.attack
def test_the_entries_on_its_run_are_its_own() -> None:
    made, _ = evidence([0, 1, 0, 1, 1])
    assert problems({**made, "subjects": [OWN]}) == [
        "The entries on the remediation's run are left out."
    ]


def test_evidence_of_the_version_before_holds() -> None:
    chain = log([0, 2, 0, 1, 1], version=2, own=2)
    contents = {sha256(one): one for one in (BEFORE, AFTER)}
    made = bundle(OWN, [OWN, RUN], chain, plan_json(PLAN), contents)
    assert all(isinstance(one, str) for one in made["chain"]["between"].values())
    told = json.loads(json.dumps({**made, "format": EARLIER}))
    assert problems(told, (chain[-1].number, chain[-1].hash)) == []


@pytest.mark.attack
@pytest.mark.parametrize("name", [RUN, OTHER])
def test_evidence_of_one_fix_is_not_shown_as_that_of_another(name: str) -> None:
    made, chain = evidence([0, 1, 0, 1, 1])
    head = (chain[-1].number, chain[-1].hash)
    assert problems(made, head) == []
    (wrong,) = problems({**made, "remediation": name}, head)
    assert wrong.startswith("No entry is on the remediation")


@pytest.mark.attack
def test_another_plan_and_other_snapshots_are_found() -> None:
    made, _ = evidence([0, 1, 0, 1, 1])
    forged = copy.deepcopy(made)
    forged["plan"]["steps"][0]["call"]["params"]["Bucket"] = "c"
    assert problems(forged) == ["The plan is not the one that the entries name."]
    assert problems({**made, "plan": None}) == ["The plan that the entries name is missing."]
    forged = copy.deepcopy(made)
    del forged["contents"][sha256(AFTER)]
    (wrong,) = problems(forged)
    assert wrong.startswith("The snapshot after (")
    forged = copy.deepcopy(made)
    forged["contents"][sha256("{}")] = "{}"
    (wrong,) = problems(forged)
    assert wrong.endswith("belongs to no entry.")


def test_what_cannot_be_left_out_is_refused() -> None:
    chain = log([0, 1, 0, 0, 0], version=1)
    with pytest.raises(BadInput, match="before the log could leave them out"):
        bundle(OWN, [OWN], chain, None, {})


@pytest.mark.parametrize(
    "bad", [[], {}, "x", {"format": FORMAT}, {"format": "other", "entries": []}]
)
def test_what_is_no_evidence_is_said(bad: Any) -> None:
    with pytest.raises(BadInput, match="evidence: is"):
        problems(bad)


@pytest.mark.parametrize("bad", ["", "1", "x:" + "0" * 64, "1:abc", "-1:" + "0" * 64])
def test_what_is_no_head_is_said(bad: str) -> None:
    with pytest.raises(BadInput, match="--head: is not NUMBER:HASH"):
        parse_head("--head", bad)


def test_the_difference_is_from_right_before_to_the_end() -> None:
    made, _ = evidence([0, 0, 0, 0, 0])
    assert changed(made) == [
        {
            "field": "resource.config.PublicAccessBlock.BlockPublicAcls",
            "before": "false",
            "after": "true",
        }
    ]


class Parts(HTMLParser):
    """Collects the tags of a page and everything that points outside."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href", "style")]


def test_the_page_is_whole_and_takes_nothing_from_a_cloud_for_html() -> None:
    made, _ = evidence([0, 1, 0, 0, 1])
    text = page(made, file="e.json", digest="d" * 64)
    parts = Parts()
    parts.feed(text)
    assert not parts.tags & {"script", "img", "link", "iframe", "object", "base", "form"}
    assert parts.outside == []
    assert "&lt;script src=https://evil.example&gt;" in text
    assert "Remediated (ann). Done." in text
    assert "held from entry 1" in " ".join(text.split())


def test_the_page_says_so_where_the_evidence_does_not_hold() -> None:
    made, _ = evidence([0, 0, 0, 0, 0])
    made["entries"][1]["actor"] = "eve"
    assert "Entry 2 was altered after it was written." in page(made, file="e", digest="d")
