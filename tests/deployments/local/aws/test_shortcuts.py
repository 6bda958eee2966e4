"""Shortcuts round moto lead where its own way leads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import xmltodict
from hypothesis import given
from hypothesis import strategies as st
from moto.core import serialize
from moto.core.utils import get_service_model
from moto.ec2.models import ec2_backends
from moto.ec2.models.core import TaggedEC2Resource

from deployments.local.aws import shortcuts

ACCOUNT, REGION = "123456789012", "eu-central-1"
FULL = {"full_document": True, "short_empty_elements": True, "pretty": False}
REST = {"full_document": True, "short_empty_elements": False, "pretty": False}
PART = {"full_document": False, "short_empty_elements": True, "pretty": False}

names = st.sampled_from(["item", "groupId", "ns:part", "a-b", "#text", "@xmlns", "@id"])
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(names, inside, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("options", [FULL, REST, PART], ids=["full", "rest", "part"])
@given(value=values, name=st.sampled_from(["Answer", "with-dash", "not a name"]))
def test_xml_is_what_xmltodict_writes(options, value, name):
    def written(write):
        try:
            return write({name: value}, **options)
        except (ValueError, AttributeError, TypeError) as error:
            return type(error)

    assert written(shortcuts._unparsed) == written(xmltodict.unparse)


def test_a_value_is_picked_by_the_names_that_moto_tries():
    output = get_service_model("ec2").operation_model("DescribeSecurityGroups").output_shape
    group = output.members["SecurityGroups"].member
    group.members["GroupId"].parent = group

    class Aliased:
        Meta = SimpleNamespace(serialization_aliases={"GroupId": "own"})
        own = "sg-by-alias"
        group_id = "sg-by-name"

    class SecurityGroup:
        group_id = "sg-by-name"

    class Bare:
        group_id = None

    picked = shortcuts._picked(lambda *_: pytest.fail("not by this way"))
    transform = {"Group.GroupId": str.upper}
    given = ({"GroupId": "sg-1"}, {"group_id": "sg-2"}, {}, Aliased(), SecurityGroup(), Bare(), 7)
    for transformers in ({}, transform):
        picker = serialize.XFormedAttributePicker(response_transformers=transformers)
        serializer = SimpleNamespace(
            _value_picker=picker, path=["Security", "Group"], operation_model=None
        )
        for value in (given[:2] if transformers else given) * 2:
            context = serialize.AttributePickerContext(
                obj=value,
                key="GroupId",
                shape=group.members["GroupId"],
                key_path="Security.Group",
            )
            found = picked(serializer, value, "GroupId", group.members["GroupId"])
            assert found == picker(context), value


def test_a_resource_s_tags_are_those_that_moto_finds():
    backend = ec2_backends[ACCOUNT][REGION]
    one = TaggedEC2Resource()
    one.id, one.ec2_backend = "sg-0a1b2c3d", backend
    assert shortcuts._tags(one) == []
    backend.create_tags(["sg-0a1b2c3d", "sg-0a1b2c3de"], {"env": "dev", "team": "x"})
    expected = backend.describe_tags(filters={"resource-id": [one.id]})
    assert shortcuts._tags(one) == expected
    assert len(expected) == 2
    backend.reset()
