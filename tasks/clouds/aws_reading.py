"""Kinds of AWS resources as data: what lists them, what reads the parts of one, what their ids are.

``listed`` makes a Collector of a kind that an account has any number of, ``settings`` of one that
an account or a region has exactly once. What does not fit has a collector of its own in aws_kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.clouds.aws_request import service_of
from tasks.clouds.aws_view import GLOBAL, AwsView, Collector, Found, part_of
from tasks.clouds.iam_actions import iam_action
from tasks.clouds.transport import reason
from tasks.errors import CloudError, ResourceGone
from tasks.model import Config, Resource, in_order

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: "sqs:GetQueueAttributes", its parameters, and where the answer has what is wanted.

    In ``params``, "{Field}" stands for a field of the listed item, "{Field:last}" for what stands
    after the last "/" or ":" of it, "{region}" and "{account}" for themselves, at any depth.
    ``take`` may lead further in, with dots between; empty takes the whole answer. ``plain`` names
    the field that an answer's plain texts become, such as a queue's URL. ``inner`` names the list
    within each of what is listed, such as the instances of a reservation. ``sparse`` is an answer
    that is empty where there is nothing to list; of any other, a missing list is an error.
    """

    call: str
    params: Mapping[str, Any] = field(default_factory=dict)
    take: str = ""
    plain: str = ""
    inner: str = ""
    sparse: bool = False

    @property
    def service(self) -> str:
        return self.call.partition(":")[0]

    @property
    def operation(self) -> str:
        return self.call.partition(":")[2]

    @property
    def action(self) -> str:
        return iam_action(self.service, self.operation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a configuration that a call of its own reads.

    ``absent`` are the error codes that say "never set", ``unset`` what the part is then. ``each``
    is made for each thing that the call listed, and its answer joins it. ``shape`` makes the part
    of all that. ``where`` says for which items the call is made at all; others have ``unset``.
    """

    name: str
    call: Call
    absent: tuple[str, ...] = ()
    unset: Any = None
    each: Call | None = None
    shape: Callable[[Any], Any] = lambda answer: answer
    where: Callable[[Item], bool] = lambda _item: True


def listed(
    kind: str,
    every: Call,
    *,
    id: str,
    name: str,
    detail: Call | None = None,
    again: Call | Mapping[str, str] | None = None,
    parts: tuple[Part, ...] = (),
    keep: Iterable[str] = (),
    drop: Iterable[str] = (),
    tags: str = "",
    only: Callable[[Item], bool] = lambda _item: True,
    shape: Callable[[Item], Item] = lambda item: item,
    regional: bool = True,
) -> Collector:
    """A kind that a paged call lists.

    ``detail`` describes an item where the list gives hardly more than names: its answer joins the
    item. ``parts`` come after that. ``id`` and ``name`` are made of an item's fields: "{TrailARN}",
    or "arn:{partition}:sqs:{region}:{account}:{name}" with what ``name`` gave.

    ``again`` says how a single resource is read again, by "{id}" or by "{last}", what stands after
    the last "/" or ":" of it: a call that lists it alone or, where ``detail`` knows the rest, the
    fields of the item. Without it the list is read again.

    ``keep`` are the item's fields that are configuration; without it all are but ``drop`` and
    ``tags``. ``shape`` makes the configuration of those fields, where the API leaves out what was
    never set, or says one thing in several ways. ``only`` leaves out items that are nobody's to
    judge. ``tags`` is the item's field of tags, or the name of the part that has them.
    """
    kept, dropped = frozenset(keep), frozenset((*drop, tags))

    def known_of(view: AwsView, region: str, item: Item) -> dict[str, Any]:
        return {**_places(view, region), **item}

    def id_of(view: AwsView, region: str, item: Item) -> str:
        known = known_of(view, region, item)
        return str(_filled(id, {**known, "name": _filled(name, known)}))

    async def detailed(view: AwsView, region: str, item: Item) -> Item:
        if detail is None:
            return item
        params = _filled(dict(detail.params), known_of(view, region, item))
        answer = await view.get(detail.service, detail.operation, region, **params)
        taken = part_of(answer, detail.take, detail.operation) if detail.take else answer
        return {**item, **(taken[0] if isinstance(taken, list) else taken)}

    def shaped(view: AwsView, region: str, item: Item, read: Mapping[str, Any]) -> Resource:
        own = {
            key: value
            for key, value in item.items()
            if (key in kept if kept else key not in dropped)
        }
        values = {key: value for key, value in read.items() if not isinstance(value, _Gap)}
        gaps = {key: value.why for key, value in read.items() if isinstance(value, _Gap)}
        named = item.get(tags) if tags in item else values.pop(tags, None)
        return view.resource(
            kind,
            region if regional else GLOBAL,
            id_of(view, region, item),
            str(_filled(name, known_of(view, region, item))),
            Config(in_order({**shape(own), **values}), gaps),
            named or (),
        )

    async def read_whole(view: AwsView, region: str, listed_item: Item) -> Resource | None:
        """The resource of an item; None where it is nobody's to judge. Raises ResourceGone."""
        item = await detailed(view, region, listed_item)
        try:
            if not only(item):
                return None
            known = known_of(view, region, item)
            asked = [part for part in parts if part.name == tags or view.needs(part.call.action)]
            read = await asyncio.gather(*(_part(view, region, part, known) for part in asked))
            names = (part.name for part in asked)
            return shaped(view, region, item, dict(zip(names, read, strict=True)))
        except (KeyError, TypeError, ValueError, AttributeError):
            words = f"{every.operation} answered what Suture cannot read"
            raise CloudError(words, operation=every.operation) from None

    async def whole_or_why_not(
        view: AwsView, region: str, item: Item
    ) -> Resource | CloudError | None:
        try:
            return await read_whole(view, region, item)
        except ResourceGone:  # since it was listed
            return None
        except CloudError as error:
            return error

    async def collect(view: AwsView, region: str) -> Found:
        items = await _items(view, region, every, _places(view, region))
        found = await asyncio.gather(*(whole_or_why_not(view, region, item) for item in items))
        missing = [one for one in found if isinstance(one, CloudError)]
        return Found(
            [one for one in found if isinstance(one, Resource)],
            f"one {reason(missing[0])}" if missing else "",
        )

    async def read(view: AwsView, resource_id: str, region: str) -> Resource:
        asked = view.source.regions[0] if region == GLOBAL else region
        known = {**_places(view, asked), "id": resource_id, "last": _last(resource_id)}
        if isinstance(again, Mapping):
            items: list[dict[str, Any]] = [_filled(dict(again), known)]
        else:
            items = await _items(view, asked, again or every, known)
        for item in items:
            if isinstance(again, Mapping) or id_of(view, asked, item) == resource_id:
                found = await read_whole(view, asked, item)
                if found is not None and found.id == resource_id:
                    return found
        raise ResourceGone(f"there is no {resource_id}", operation=every.operation)

    calls = [every, *([again] if isinstance(again, Call) else []), *([detail] if detail else [])]
    return Collector(
        kind=kind,
        reads=_actions([*calls, *_calls(parts)]),
        collect=collect,
        read=read,
        regional=regional,
        once=(every.call,),
        each=tuple(call.call for call in ([detail] if detail else [])) + _of_parts(parts),
        deeper=_of_inner(parts),
    )


def settings(
    kind: str, parts: tuple[Part, ...], *, id: str, name: str, regional: bool = True
) -> Collector:
    """What every region has once or, not ``regional``, every account.

    ``id`` and ``name`` are texts with "{partition}", "{region}" and "{account}" in them.
    """

    async def read(view: AwsView, _id: str, region: str) -> Resource:
        asked = view.source.regions[0] if region == GLOBAL else region
        known = _places(view, asked)
        wanted = [part for part in parts if view.needs(part.call.action)]
        read = await asyncio.gather(*(_part(view, asked, part, known) for part in wanted))
        found = dict(zip((part.name for part in wanted), read, strict=True))
        missing = [one for one in found.values() if isinstance(one, _Gap)]
        if missing and len(missing) == len(found):
            raise missing[0].error  # nothing was read at all
        return view.resource(
            kind,
            region if regional else GLOBAL,
            _filled(id, known),
            _filled(name, known),
            Config(
                in_order({key: one for key, one in found.items() if not isinstance(one, _Gap)}),
                {key: one.why for key, one in found.items() if isinstance(one, _Gap)},
            ),
        )

    async def collect(view: AwsView, region: str) -> Found:
        return Found([await read(view, "", region)])

    return Collector(
        kind=kind,
        reads=_actions(_calls(parts)),
        collect=collect,
        read=read,
        regional=regional,
        once=_of_parts(parts),
        deeper=_of_inner(parts),
    )


@dataclass(frozen=True, slots=True)
class _Gap:
    """A part that could not be read."""

    error: CloudError

    @property
    def why(self) -> str:
        return reason(self.error)


def _places(view: AwsView, region: str) -> dict[str, str]:
    return {"partition": view.source.partition, "region": region, "account": view.account}


async def _part(view: AwsView, region: str, part: Part, known: Mapping[str, Any]) -> Any:
    if not part.where(known):
        return part.unset
    call = part.call
    try:
        taken = await _taken(view, region, call, _filled(dict(call.params), known))
        if part.each is not None:
            taken = await _joined(view, region, part.each, taken, known)
        return part.shape(taken)
    except ResourceGone as gone:
        if gone.code not in part.absent:
            raise
        return part.unset
    except CloudError as error:
        return part.unset if error.code in part.absent else _Gap(error)
    except (KeyError, ValueError, TypeError):
        words = f"{call.operation} answered what Suture cannot read"
        return _Gap(CloudError(words, operation=call.operation))


async def _joined(
    view: AwsView, region: str, call: Call, listed: Any, known: Mapping[str, Any]
) -> list[Item]:
    """What was listed, each with what ``call`` says of it; without what has gone meanwhile."""

    async def joined(one: Item) -> Item | None:
        params = _filled(dict(call.params), {**known, **one})
        try:
            answer = await view.get(call.service, call.operation, region, **params)
        except ResourceGone:
            return None
        return {**one, **(part_of(answer, call.take, call.operation) if call.take else answer)}

    found = await asyncio.gather(*(joined(one) for one in listed))
    return [one for one in found if one is not None]


async def _items(
    view: AwsView, region: str, call: Call, known: Mapping[str, Any]
) -> list[dict[str, Any]]:
    taken = await _taken(view, region, call, _filled(dict(call.params), known))
    found = taken if isinstance(taken, list) else [taken]
    if call.inner:
        found = [one for outer in found for one in part_of(outer, call.inner, call.operation)]
    return [{call.plain: one} if call.plain else one for one in found]


async def _taken(view: AwsView, region: str, call: Call, params: Mapping[str, Any]) -> Any:
    """What a call takes of its answer; of a paged one, the items of every page."""
    if call.take and call.operation in service_of(call.service).paginators:
        return await view.list(
            call.service, call.operation, region, call.take, sparse=call.sparse, **params
        )
    answer = await view.get(call.service, call.operation, region, **params)
    if answer.get("NextToken") or answer.get("nextToken"):  # it needs a paginator after all
        raise CloudError("there are more pages than were read", operation=call.operation)
    return part_of(answer, call.take, call.operation) if call.take else answer


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """``value`` with every "{Field}" replaced. One that stands alone keeps its type."""
    if isinstance(value, Mapping):
        return {key: _filled(one, known) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, known) for one in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    if value.startswith("{") and value.endswith("}") and value.count("{") == 1:
        return _field(known, value[1:-1])
    pieces = []
    rest = value
    while "{" in rest:
        before, _, rest = rest.partition("{")
        named, _, rest = rest.partition("}")
        pieces += [before, str(_field(known, named))]
    return "".join([*pieces, rest])


def _field(known: Mapping[str, Any], path: str) -> Any:
    """A field of an item; dots lead further in. Raises CloudError where the answer lacks it."""
    path, _, piece = path.partition(":")
    found = part_of(known, path, "list")
    return _last(str(found)) if piece == "last" else found


def _last(name: str) -> str:
    """The resource's own name, of an ARN or a URL."""
    return name.replace(":", "/").rpartition("/")[2]


def _calls(parts: Iterable[Part]) -> Iterable[Call]:
    for part in parts:
        yield part.call
        if part.each is not None:
            yield part.each


def _of_parts(parts: Iterable[Part]) -> tuple[str, ...]:
    return tuple(part.call.call for part in parts)


def _of_inner(parts: Iterable[Part]) -> tuple[str, ...]:
    return tuple(part.each.call for part in parts if part.each is not None)


def _actions(calls: Iterable[Call]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(call.action for call in calls))
