"""Who may approve: what counts, whom it names, and that two spellings are one person."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.approvers import Approvals, Given, Terms, terms, terms_from_json
from tasks.model import Severity

pytestmark = pytest.mark.attack

names = st.text(min_size=2, max_size=20)
HIGH = Severity.HIGH


@pytest.mark.parametrize(
    ("asked", "approver", "verified", "words"),
    [
        (Terms(), "Ada", False, ""),
        (Terms(verified=True), "ada", False, "sign-in proxy"),
        (Terms(verified=True), "ada", True, ""),
        (Terms(2, given=(Given("Ada", False),)), "Bob", False, ""),
        (Terms(2, given=(Given("Ada", False),)), " ADA", False, "approved this already"),
        (Terms(2, given=(Given("ada", True),)), "Ａｄａ", True, "approved this already"),
        (Terms(not_requester=True, requesters=("ada@x.org",)), "Ada@X.org", True, "Who asked"),
        (Terms(not_requester=True, requesters=("triage",)), "ada@x.org", True, ""),
        (Terms(requesters=("ada@x.org",)), "ada@x.org", True, ""),
        (Terms(approvers=(("*@x.org",),)), "Ada@X.ORG", True, ""),
        (Terms(approvers=(("*@x.org",),)), "ada@x.org.evil", True, "not among"),
        (Terms(approvers=(("*@x.org",),)), "eve＠x.org", True, "not among"),
        (Terms(approvers=(("kim@x.org",),)), "ｋim@x.org", True, "not among"),
        (Terms(approvers=(("kim@x.org",),)), "\N{KELVIN SIGN}im@x.org", True, "not among"),
        (Terms(approvers=(("strasse@x.org",),)), "straße@x.org", True, "not among"),
        (Terms(approvers=(("ada [ops]",),)), "ada o", True, "not among"),
        (Terms(approvers=(("ada [ops]",),)), "Ada  [Ops]", True, ""),
        (Terms(approvers=(("*@x.org",), ("ada@*", "bob@*"))), "bob@x.org", True, ""),
        (Terms(approvers=(("*@x.org",), ("ada@*", "bob@*"))), "eve@x.org", True, "not among"),
    ],
)
def test_whose_approval_counts(asked: Terms, approver: str, verified: bool, words: str) -> None:
    refusal = asked.refusal(approver, verified=verified)
    assert words in refusal
    assert bool(words) is bool(refusal)
    assert approver not in refusal


@given(st.lists(names, max_size=6), st.integers(1, 2))
def test_never_two_approvals_of_one_person(tries: list[str], needed: int) -> None:
    asked = Terms(needed)
    for approver in tries:
        if asked.last and asked.given and not asked.refusal(approver, verified=False):
            assert approver.casefold() != asked.given[0].approver.casefold()
        if not asked.last and not asked.refusal(approver, verified=False):
            asked = asked.approved_by(approver, verified=False)
    assert len(asked.given) < needed or not tries


@given(
    st.lists(
        st.tuples(
            st.builds(
                Approvals,
                st.none() | st.sampled_from(Severity),
                st.booleans(),
                st.lists(names, max_size=2).map(tuple),
                st.booleans(),
            ),
            st.sampled_from(Severity),
        ),
        max_size=4,
    )
)
def test_what_several_policies_ask_is_no_milder_than_each(
    asked: list[tuple[Approvals, Severity]],
) -> None:
    together = terms(asked, ["ada", "", "ada"])
    for one, severity in asked:
        alone = terms([(one, severity)])
        assert together.needed >= alone.needed
        assert together.verified >= alone.verified
        assert together.not_requester >= alone.not_requester
        assert set(alone.approvers) <= set(together.approvers)
    assert together.requesters == ("ada",)
    kept = json.loads(json.dumps(together.approved_by("ada", verified=True).as_json()))
    assert terms_from_json(kept) == together.approved_by("ada", verified=True)


@pytest.mark.parametrize("severity", list(Severity))
def test_two_from_a_severity_on(severity: Severity) -> None:
    needed = terms([(Approvals(two_from=HIGH), severity)]).needed
    assert needed == (2 if severity in (Severity.CRITICAL, HIGH) else 1)
