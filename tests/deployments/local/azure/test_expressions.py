"""The expressions and the shape of ARM templates, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.azure.arm_template import Plan, plan
from deployments.local.azure.expressions import LATER, Scope, evaluated
from deployments.local.azure.protocol import ArmError

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
WIDE = Scope(
    tenant="t",
    subscription=SUBSCRIPTION,
    group="",
    deployment={"name": "d", "location": "westeurope"},
    referenced=lambda resource, version: {"asked": f"{resource}@{version}"},
    parameters={"name": "web", "many": ["a", "b"], "rules": {"Deep": [{"port": 22}]}},
    variables={"role": "r"},
)
NARROW = Scope(
    tenant="t",
    subscription=SUBSCRIPTION,
    group="rg",
    deployment={"name": "d"},
    referenced=lambda _resource, _version: LATER,
)
SCHEMAS = "https://schema.management.azure.com/schemas"
DEPLOYABLE = frozenset({"microsoft.x/things", "microsoft.resources/deployments"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("[[not an expression]", "[not an expression]"),
        ("[one] and [other", "[one] and [other"),
        ("['it''s']", "it's"),
        ("[concat('a', 1, parameters('NAME'))]", "a1web"),
        ("[concat(parameters('many'), parameters('many'))]", ["a", "b", "a", "b"]),
        ("[parameters('rules').deep[0].port]", 22),
        ("[ last( split( subscription().id , '/' ) ) ]", SUBSCRIPTION),
        ("[length(parameters('many'))]", 2),
        ("[variables('role')]", "r"),
        ("[deployment().location]", "westeurope"),
        ("[subscription().tenantId]", "t"),
        ("[reference('/x', '2020-01-01').asked]", "/x@2020-01-01"),
        (
            "[subscriptionResourceId('Microsoft.A/b', 'c')]",
            f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.A/b/c",
        ),
        (
            f"[subscriptionResourceId('{OTHER}', 'Microsoft.A/b/c', 'x', 'y')]",
            f"/subscriptions/{OTHER}/providers/Microsoft.A/b/x/c/y",
        ),
        (
            "[subscriptionResourceId('Microsoft.Resources/resourceGroups', 'rg')]",
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg",
        ),
        (
            f"[resourceId('{OTHER}', 'rg', 'Microsoft.A/b', 'c')]",
            f"/subscriptions/{OTHER}/resourceGroups/rg/providers/Microsoft.A/b/c",
        ),
    ],
)
def test_an_expression_says(text: str, value: Any) -> None:
    assert evaluated({"deep": [text]}, WIDE) == {"deep": [value]}


def test_a_resource_group_has_ids_of_its_own() -> None:
    assert evaluated("[resourceId('Microsoft.A/b', 'c')]", NARROW) == (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.A/b/c"
    )


def test_guids_are_the_same_for_the_same_words_only() -> None:
    one, same, other = (evaluated(f"[guid('a', '{word}')]", WIDE) for word in ("b", "b", "c"))
    assert one == same != other
    assert len(one) == 36


def test_what_is_not_known_yet_makes_what_is_made_of_it_unknown() -> None:
    assert evaluated("[concat('a', reference('/x', '1').b.c[0])]", NARROW) is LATER


@pytest.mark.parametrize(
    "text",
    [
        "[uniqueString('a')]",
        "[parameters('nobody')]",
        "[variables('nobody')]",
        "[subscription().nothing]",
        "[parameters('many')[7]]",
        "[copyIndex()]",
        "[concat()]",
        "[concat('a', parameters('many'))]",
        "[concat('a']",
        "['open]",
        "[concat('a') 'b']",
        "[parameters]",
        "[]",
        "[!]",
        "[length(1)]",
        "[last('')]",
        "[split('a')]",
        "[guid()]",
        "[reference('/x')]",
        "[resourceId('Microsoft.A/b')]",
        "[resourceId('Microsoft.A/b', 'c', 'd')]",
        "[resourceId('a', 'b', 'c', 'Microsoft.A/b', 'd')]",
        "[subscription('x')]",
    ],
)
def test_what_is_no_expression_or_not_emulated_is_refused(text: str) -> None:
    with pytest.raises(ArmError) as caught:
        evaluated(text, WIDE)
    assert (caught.value.status, caught.value.code) == (400, "InvalidTemplate")


@given(st.text())
def test_any_text_is_a_value_or_refused_in_arms_words(text: str) -> None:
    code = ""
    try:
        evaluated(f"[{text}]", WIDE)
    except ArmError as error:
        code = error.code
    assert code in {"", "InvalidTemplate"}


@given(st.text(alphabet=st.characters(exclude_characters="[]")))
def test_a_quoted_text_comes_back_as_it_was(text: str) -> None:
    quoted = text.replace("'", "''")
    assert evaluated(f"['{quoted}']", WIDE) == text


# --- Templates ----------------------------------------------------------------------------------


def thing(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "Microsoft.X/things", "apiVersion": "1", "name": name, **more}


def template(*resources: Any, **sections: Any) -> dict[str, Any]:
    return {
        "$schema": f"{SCHEMAS}/2018-05-01/subscriptionDeploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": list(resources),
        **sections,
    }


def laid_out(raw: Any, **given_values: Any) -> Plan:
    given_parameters = {name: {"value": value} for name, value in given_values.items()}
    return plan(raw, given_parameters, WIDE, DEPLOYABLE)


def names(found: Plan) -> list[str]:
    return [one.id.rpartition("/")[2] for one in found.resources]


def test_resources_are_made_after_what_they_depend_on() -> None:
    on = "[subscriptionResourceId('Microsoft.X/things', '{}')]"
    found = laid_out(
        template(
            thing("c", dependsOn=[on.format("b"), on.format("A")]),
            thing("b", dependsOn=[on.format("a")]),
            thing("a"),
        )
    )
    assert names(found) == ["a", "b", "c"]


def test_a_copy_loop_makes_one_of_each() -> None:
    loop = {"name": "loop", "count": "[length(parameters('scopes'))]"}
    raw = template(
        thing("[concat('n', copyIndex())]", copy=loop, properties={"index": "[copyIndex()]"}),
        parameters={"scopes": {"type": "array"}},
    )
    found = laid_out(raw, scopes=["x", "y"])
    assert names(found) == ["n0", "n1"]
    assert [one.body() for one in found.resources] == [
        {"properties": {"index": 0}},
        {"properties": {"index": 1}},
    ]
    assert laid_out(raw, scopes=[]).resources == ()


def test_defaults_and_outputs_are_evaluated() -> None:
    raw = template(
        parameters={"where": {"type": "string", "defaultValue": "[deployment().location]"}},
        outputs={"w": {"type": "string", "value": "[parameters('where')]"}},
    )
    assert laid_out(raw).outputs() == {"w": {"type": "string", "value": "westeurope"}}
    assert laid_out(raw, where="eastus").outputs()["w"]["value"] == "eastus"


LATE = "[reference('/x', '1').y]"
TEXT = {"p": {"type": "string"}}
NESTED = {
    "type": "Microsoft.Resources/deployments",
    "apiVersion": "1",
    "name": "n",
    "properties": {"mode": "Incremental", "template": {}},
}


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (None, {}),
        (template() | {"$schema": f"{SCHEMAS}/2019-04-01/deploymentTemplate.json#"}, {}),
        (template() | {"$schema": ""}, {}),
        (template() | {"contentVersion": "one"}, {}),
        (template() | {"resources": {}}, {}),
        (template(functions=[]), {}),
        (template(variables={"copy": []}), {}),
        (template(variables={"v": LATE}), {}),
        (template(parameters=TEXT), {}),
        (template(parameters=TEXT), {"p": 1}),
        (template(parameters=TEXT), {"p": "x", "q": "y"}),
        (template(parameters={"p": {"type": "secureString"}}), {"p": "x"}),
        (template(parameters={"p": {"type": "int"}}), {"p": True}),
        (template(parameters={"p": {"type": "string", "minLength": 3}}), {"p": "x"}),
        (template(parameters={"p": {"type": "string", "allowedValues": ["a"]}}), {"p": "x"}),
        (template(parameters={"p": {"type": "string", "defaultValue": LATE}}), {}),
        (template("text"), {}),
        (template({"type": "Microsoft.X/things"}), {}),
        (template(thing("a", condition=False)), {}),
        (template(thing("a", resourceGroup="rg")), {}),
        (template(thing("a") | {"type": "Microsoft.Y/others"}), {}),
        (template(thing("a/b")), {}),
        (template(thing(LATE)), {}),
        (template(thing("a"), thing("A")), {}),
        (template(thing("a", dependsOn=["/nobody"])), {}),
        (template(thing("a", copy={"name": "x", "count": "many"})), {}),
        (template(thing("a", copy={"name": "x", "count": 1, "mode": "serial"})), {}),
        (template(NESTED), {}),
    ],
)  # fmt: skip
def test_what_is_no_template_or_not_emulated_is_refused(raw: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ArmError) as caught:
        laid_out(raw, **values)
    assert (caught.value.status, caught.value.code) == (400, "InvalidTemplate")


def test_a_circle_is_refused() -> None:
    on = "[subscriptionResourceId('Microsoft.X/things', '{}')]"
    circle = template(
        thing("a", dependsOn=[on.format("b")]), thing("b", dependsOn=[on.format("a")])
    )
    with pytest.raises(ArmError, match="InvalidTemplate"):
        laid_out(circle)
