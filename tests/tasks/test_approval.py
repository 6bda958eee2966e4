"""What an approver may type: every rule, and that no message repeats what was typed."""

from __future__ import annotations

import ipaddress
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.forms import approval_form
from tasks.approval import (
    HANDLE_PREFIX,
    MAX_CHARACTERS,
    Decision,
    check,
    form_shape,
    is_handle,
    parse_cidrs,
    problems,
)
from tasks.approvers import Given, Terms
from tasks.errors import BadAnswer
from tasks.model import Input

CIDRS = Input("allowed_cidrs", "cidrs", "Networks that may still connect")
LENGTH = Input("minimum_length", "number", "Shortest password")
NOTE = Input("note", "text", "Note", required=True)
HANDLE = HANDLE_PREFIX + "A" * 43


def answer(**fields: object) -> dict[str, object]:
    return {"decision": "approve", "approver": "Ada Lovelace", "code": "918273", **fields}


def refused(fields: dict[str, object], *, typed: bool = True, numbers: int | None = 9) -> list[str]:
    found = problems(fields, numbers=numbers, inputs=(CIDRS, LENGTH), typed=typed)
    return [problem.field for problem in found]


def test_a_good_answer_is_parsed() -> None:
    good = check(
        answer(
            approver="  Ada Lovelace ",
            code=" 918 273 ",
            leave_out="2, 5-7 9",
            allowed_cidrs="10.0.0.0/8, 2001:DB8::/32\n192.0.2.7/32 10.0.0.0/8",
            minimum_length="14",
        ),
        numbers=9,
        inputs=(CIDRS, LENGTH),
        typed=True,
    )
    assert good.approved
    assert good.approver == "Ada Lovelace"
    assert good.code.get_secret_value() == "918273"
    assert good.handle == ""
    assert good.leave_out == {2, 5, 6, 7, 9}
    assert good.values == {
        "allowed_cidrs": ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"),
        "minimum_length": 14,
    }
    assert "918273" not in repr(good)


def test_empty_optional_fields_are_no_values() -> None:
    good = check(
        answer(leave_out=None, allowed_cidrs=" ", minimum_length=""),
        numbers=3,
        inputs=(CIDRS, LENGTH),
        typed=True,
    )
    assert good.leave_out == frozenset()
    assert good.values == {"allowed_cidrs": ()}


@pytest.mark.parametrize(
    "code",
    ["", "12345", "1234567", "12345a", "９１８２７３", "٩١٨٢٧٣", "918273\x00", "-18273", HANDLE],
)
def test_an_approval_takes_six_digits_only(code: str) -> None:
    assert refused(answer(code=code)) == ["code"]


@pytest.mark.parametrize("code", ["", "12345", "918273", "no idea"])
def test_a_denial_needs_no_code_and_keeps_none(code: str) -> None:
    denial = check(answer(decision="deny", code=code), typed=True)
    assert denial.decision is Decision.DENY
    assert denial.code.get_secret_value() == ""


def test_the_flow_takes_a_handle_and_never_digits() -> None:
    assert check(answer(code=HANDLE)).handle == HANDLE
    assert check(answer(decision="deny", code=HANDLE)).handle == HANDLE
    assert check(answer(decision="deny", code="")).handle == ""
    assert refused(answer(code="918273"), typed=False) == ["code"]


@pytest.mark.parametrize("decision", ["", "Approve", "yes", "approve deny", None])
def test_the_decision_is_one_of_two_words(decision: str | None) -> None:
    assert "decision" in refused(answer(decision=decision))


@pytest.mark.parametrize(
    "approver", ["", "A", "x" * 101, "Ada\nLovelace", "Ada\u202eevil", "123456", "123 456"]
)
def test_an_approver_has_a_name(approver: str) -> None:
    assert "approver" in refused(answer(approver=approver, code="555444"))


def test_the_sign_in_proxys_name_replaces_what_was_written() -> None:
    verified = check(answer(approver="Mallory"), typed=True, approver="ada@example.org")
    assert verified.approver == "ada@example.org"
    assert check(answer(), typed=True, approver="204918").approver == "204918"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1/8", "network 1 has bits set"),
        ("10.0.0.0/8 10.0.0.300/32", "network 2 is not a network"),
        ("10.0.0.1", "network 1 has no prefix length"),
        ("10.0.0.0/255.0.0.0", "network 1 is not a network"),
        ("10.0.0.0/33", "network 1 is not a network"),
        ("fe80::%eth0/64", "network 1 is not a network"),
        ("١٠.0.0.0/8", "network 1 is not a network"),
        ("0.0.0.0/0", "network 1 is the internet"),
        ("::/0", "network 1 is the internet"),
        ("0.0.0.0/1", "network 1 is the internet"),
        ("2000::/3", "network 1 is the internet"),
        (" ".join(f"{first}.0.0.0/8" for first in range(1, 40)), "together allow much"),
        ("::ffff:0:0/96", "IPv4 in IPv6"),
        ("::ffff:10.0.0.0/104", "IPv4 in IPv6"),
        ("10.0.0.0/8 " * 51, "more than 50 networks"),
    ],
)
def test_networks_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(BadAnswer, match=words) as refusal:
        parse_cidrs("allowed_cidrs", text)
    assert refusal.value.field == "allowed_cidrs"


@pytest.mark.parametrize("text", ["fc00::/7", "10.0.0.0/8", "10.0.0.0/8,11.0.0.0/8", ""])
def test_networks_that_are_fine(text: str) -> None:
    assert parse_cidrs("allowed_cidrs", text) == tuple(filter(None, text.split(",")))


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=5))
def test_single_addresses_are_always_fine(addresses: list[ipaddress.IPv4Address]) -> None:
    networks = [f"{address}/32" for address in addresses]
    assert parse_cidrs("allowed_cidrs", " ".join(networks)) == tuple(dict.fromkeys(networks))


@pytest.mark.parametrize("text", ["0", "10", "3-2", "1-10", "two", "2,,x", "1-2-3", "#2", "²"])
def test_leave_out_names_rows_of_the_table(text: str) -> None:
    assert refused(answer(leave_out=text)) == ["leave_out"]


@pytest.mark.parametrize(
    ("text", "rows"), [("2 - 4", {2, 3, 4}), ("2–4", {2, 3, 4}), ("1;3", {1, 3}), ("", set())]
)
def test_leave_out_is_read_as_people_write_it(text: str, rows: set[int]) -> None:
    assert check(answer(leave_out=text), numbers=9, typed=True).leave_out == rows


def test_leaving_all_out_is_no_approval() -> None:
    assert refused(answer(leave_out="1-9")) == ["leave_out"]
    assert refused(answer(decision="deny", leave_out="1-9")) == []


@pytest.mark.parametrize("text", ["-1", "1.5", "100000", "１４", "918273"])
def test_a_number_is_a_small_whole_number(text: str) -> None:
    assert "minimum_length" in refused(answer(minimum_length=text, code="555444"))


def test_a_required_value_is_asked_for_on_approval_only() -> None:
    missing = problems(answer(), inputs=(NOTE,), typed=True)
    assert [str(problem) for problem in missing] == ["note: is missing."]
    assert problems(answer(decision="deny"), inputs=(NOTE,), typed=True) == []
    assert problems(answer(note="a\nb"), inputs=(NOTE,), typed=True)[0].field == "note"


def test_the_code_in_another_field_is_caught_before_it_is_stored() -> None:
    assert refused(answer(approver="Ada 918273")) == ["approver"]
    assert problems(answer(note="code 918 273"), inputs=(NOTE,), typed=True)[0].field == "note"


def test_what_was_not_asked_is_refused_without_its_name() -> None:
    (problem,) = problems(answer(surprise="x"), typed=True)
    assert problem.field == "form"
    assert "surprise" not in str(problem)


@pytest.mark.parametrize("value", [7, 918273, True, ["918273"], {"__prefect_kind": "jinja"}])
def test_only_text_is_taken(value: object) -> None:
    assert refused(answer(code=value)) == ["code"]


def test_oversize_fields_are_refused() -> None:
    assert refused(answer(allowed_cidrs="1" * (MAX_CHARACTERS + 1))) == ["allowed_cidrs"]


def test_all_problems_come_at_once_in_the_forms_order() -> None:
    assert refused(
        answer(decision="?", approver="", leave_out="x", allowed_cidrs="x", minimum_length="x")
    ) == ["decision", "approver", "leave_out", "allowed_cidrs", "minimum_length"]


def test_check_raises_the_first_problem() -> None:
    with pytest.raises(BadAnswer) as refusal:
        check(answer(code="12345"), typed=True)
    assert refusal.value.field == "code"
    assert str(refusal.value).startswith("code: must be exactly 6 digits")


# Letters that stand in no message, so that finding them in one can only be an echo.
STRANGE = st.text(alphabet="ĸŋœđħŧ" + string.digits, min_size=4, max_size=40).filter(
    lambda text: any(letter in "ĸŋœđħŧ" for letter in text)
)
ANYTHING = st.one_of(STRANGE, st.integers(100_000), st.lists(STRANGE, max_size=2), st.none())
NAMES = st.sampled_from(
    ["decision", "approver", "code", "leave_out", "allowed_cidrs", "minimum_length", "note"]
)


@given(st.dictionaries(st.one_of(NAMES, STRANGE), ANYTHING), st.booleans())
def test_no_message_repeats_a_value_or_an_unknown_name(
    fields: dict[str, object], typed: bool
) -> None:
    inputs = (CIDRS, LENGTH, NOTE)
    known = {"decision", "approver", "code", "leave_out", *(asked.name for asked in inputs)}
    said = " ".join(
        str(problem) for problem in problems(fields, numbers=9, inputs=inputs, typed=typed)
    )
    assert said  # none of these is an answer
    typed_texts = [str(value) for value in fields.values() if value not in (None, [])]
    for text in typed_texts + [name for name in fields if name not in known]:
        assert text not in said


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_answered_with_words_or_a_clean_answer(cidrs: str, rows: str) -> None:
    fields = answer(allowed_cidrs=cidrs, leave_out=rows)
    if problems(fields, numbers=9, inputs=(CIDRS,), typed=True):
        return
    good = check(fields, numbers=9, inputs=(CIDRS,), typed=True)
    assert good.leave_out <= set(range(1, 10))
    for network in good.values["allowed_cidrs"]:
        assert ipaddress.ip_network(network, strict=True).prefixlen >= 7


def test_a_form_is_known_by_its_code_field() -> None:
    shape = form_shape(
        {
            "properties": {
                "decision": {},
                "approver": {},
                "code": {},
                "leave_out": {"numbers": 4},
                "allowed_cidrs": {"title": "Networks"},
                "minimum_length": {"kind": "number"},
                "reason": {},
            },
            "required": ["decision", "reason"],
        }
    )
    assert shape is not None
    assert shape.numbers == 4
    assert [(asked.name, asked.kind, asked.required) for asked in shape.inputs] == [
        ("allowed_cidrs", "cidrs", False),
        ("minimum_length", "number", False),
        ("reason", "text", True),
    ]
    assert form_shape({"properties": {"decision": {}}}) is None
    assert form_shape({"title": "x"}) is None


def test_the_first_approval_of_two_drops_a_code() -> None:
    for code in ("918273", "", "12"):
        first = check(answer(code=code), inputs=(CIDRS,), typed=True, code_needed=False)
        assert first.code.get_secret_value() == ""
    # It goes nowhere, also not by way of another field.
    assert problems(
        answer(code="918273", approver="Ada 918273"), inputs=(CIDRS,), typed=True, code_needed=False
    )


def test_a_form_carries_its_terms() -> None:
    asked = Terms(2, True, True, (("ada", "b*"), ("*",)), ("bob",), (Given("ada", True),))
    schema = approval_form([CIDRS], "page", numbers=1, terms=asked).model_json_schema()
    shape = form_shape(json.loads(json.dumps(schema)))
    assert shape is not None
    assert shape.terms == asked
    assert "code" not in schema["required"]
    plain = form_shape(approval_form([], "page", numbers=1).model_json_schema())
    assert plain is not None
    assert plain.terms == Terms()


def test_a_handle_is_recognised_exactly() -> None:
    assert is_handle(HANDLE)
    assert not is_handle(HANDLE + "A")
    assert not is_handle(HANDLE + "\n")
    assert not is_handle("918273")
