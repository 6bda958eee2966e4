"""Resource Graph: what it says counts only where it can be vouched for, and lists say the rest."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.azure.graph import GraphOptions
from deployments.local.azure.network import SecurityGroup
from deployments.local.azure.rbac import RoleAssignment, RoleDefinition
from deployments.local.azure.server import EmulatedAzure
from deployments.local.azure.storage import StorageAccount
from tasks.clouds import azure_collect, azure_credentials
from tasks.clouds.azure_api import AzureApi
from tasks.clouds.azure_collect import COLLECTORS, read_one, share_graph
from tasks.clouds.azure_graph import SharedGraph, permissions
from tasks.clouds.scanner import GRAPH_LAG_SECONDS, Scanner
from tasks.clouds.transport import Limits
from tasks.errors import AccessRefused, CloudError, Throttled
from tasks.inventory import AzureSource, Inventory
from tasks.model import Account, AccountScan, Cloud, Resource

NSG, STORAGE = "azure.network.security_group", "azure.storage.account"
SOURCE = AzureSource(
    name="contoso",
    tenant="9a0c2a0e-1111-4222-8333-444455556601",
    client_id="9a0c2a0e-1111-4222-8333-444455556603",
    client_secret_env="UNUSED",
)


@pytest.fixture(autouse=True)
def graph_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated fleets are smaller than those that the graph pays for."""
    monkeypatch.setattr(azure_collect, "FEWEST_GRAPH_SUBSCRIPTIONS", 1)


# --- What the identity may -----------------------------------------------------------------------


class Answers(AzureApi):
    """Permissions as given; Resource Graph from a list of pages or errors, in order."""

    def __init__(self, entries: Any = (), pages: Sequence[Any] = ()) -> None:
        super().__init__(SOURCE)
        self.entries = entries
        self.pages = list(pages)
        self.asked: list[tuple[str, ...]] = []

    async def items(self, path: str, api_version: str, **query: str) -> AsyncIterator[Any]:
        for entry in self.entries:
            yield entry

    async def query(self, query: str, subscriptions: Sequence[str], *, top: int) -> dict[str, Any]:
        self.asked.append(tuple(subscriptions))
        await asyncio.sleep(0)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


READ = "Microsoft.Network/networkSecurityGroups/read"


@pytest.mark.parametrize(
    ("entries", "allowed"),
    [
        ([], False),
        ([{"actions": ["*"], "notActions": []}], True),
        ([{"actions": ["*/read"]}], True),
        ([{"actions": ["*/READ"], "notActions": None}], True),
        ([{"actions": ["Microsoft.Network/*"]}], True),
        ([{"actions": ["microsoft.network/networksecuritygroups/read"]}], True),
        ([{"actions": ["Microsoft.Network/networkSecurityGroups/*/read"]}], False),
        ([{"actions": ["Microsoft.Network/networkSecurityGroups/readAll"]}], False),
        ([{"actions": ["MicrosoftXNetwork/networkSecurityGroups/read"]}], False),
        ([{"actions": ["Microsoft.Storage/*"]}], False),
        ([{"actions": ["*"], "notActions": ["Microsoft.Network/*"]}], False),
        ([{"actions": ["*"], "notActions": ["Microsoft.Network/*/write"]}], True),
        # What one role leaves out, another may give.
        ([{"actions": ["*"], "notActions": ["*/read"]}, {"actions": [READ]}], True),
        ([{"actions": ["a/read"]}, {"actions": ["*"], "notActions": [READ]}], False),
        ([{"actions": ["*"], "condition": "@Resource[x] StringEquals 'y'"}], False),
        ([{"actions": ["*"], "condition": None}], True),
    ],
)
async def test_permissions_as_arm_means_them(entries: Any, allowed: bool) -> None:
    may = await permissions(Answers(entries), "s")
    assert may(READ) is allowed


@pytest.mark.parametrize("strange", [None, {}, "text", {"actions": None}, {"actions": [1]}])
async def test_permissions_that_cannot_be_read(strange: Any) -> None:
    with pytest.raises(CloudError, match="cannot read"):
        await permissions(Answers([strange]), "s")


# --- What counts ---------------------------------------------------------------------------------


def counts(**found: int | None) -> dict[str, Any]:
    return {"data": [{"subscriptionId": one, "found": many} for one, many in found.items()]}


def rows(*ids: str, **more: Any) -> dict[str, Any]:
    """An answer with rows, each id "subscription/name"."""
    data = [{"subscriptionId": one.partition("/")[0], "id": one} for one in ids]
    return {"data": data, **more}


def graph_of(subscriptions: str) -> SharedGraph[str]:
    def shape(subscription: str, row: dict[str, Any]) -> str:
        if "broken" in row["id"]:
            raise CloudError("cannot read")
        return str(row["id"])

    return SharedGraph(subscriptions, ["T/x"], shape)


async def taken(subscriptions: str, *pages: Any) -> list[list[str] | None]:
    api, graph = Answers(pages=pages), graph_of(subscriptions)
    return [await graph.take(api, one) for one in graph.subscriptions]


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has two rows at the most."""
    monkeypatch.setattr("tasks.clouds.azure_graph.MOST_ROWS", 2)


async def test_subscriptions_get_their_rows() -> None:
    assert await taken(
        "abcd", counts(a=1, b=3, c=None, d=1), rows("a/1", "b/1", "b/2", "b/3", "d/1")
    ) == [["a/1"], ["b/1", "b/2", "b/3"], [], ["d/1"]]


@pytest.mark.usefixtures("two_rows")
async def test_what_fits_into_one_answer_is_asked_together() -> None:
    """And what fits into none is left to ARM's list, where pages are no positions."""
    graph = graph_of("abcdef")
    pages = [counts(a=1, b=3, c=1, d=2, e=0, f=1)]
    pages += [rows("a/1", "c/1"), rows("d/1", "d/2"), rows("f/1")]
    api = Answers(pages=pages)
    assert [await graph.take(api, one) for one in "abcdef"] == [
        ["a/1"],
        None,
        ["c/1"],
        ["d/1", "d/2"],
        [],
        ["f/1"],
    ]
    assert api.asked == [tuple("abcdef"), ("a", "c"), ("d",), ("f",)]


async def test_subscription_that_the_graph_does_not_know_is_not_empty() -> None:
    assert await taken("ab", counts(a=0)) == [[], None]
    assert await taken("ab", counts(b=1), rows("b/1")) == [None, ["b/1"]]


async def test_fleet_without_any_rows_is_asked_once() -> None:
    api, graph = Answers(pages=[counts(a=0, b=None)]), graph_of("ab")
    assert [await graph.take(api, one) for one in "ab"] == [[], []]
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "found", [("b/1",), (), ("b/1", "b/1"), ("b/1", "b/2", "b/3"), ("b/1", "b/broken")]
)
async def test_subscription_whose_rows_are_not_what_was_counted(found: tuple[str, ...]) -> None:
    answer = rows("a/1", *found, "c/1")
    assert await taken("abc", counts(a=1, b=2, c=1), answer) == [["a/1"], None, ["c/1"]]


REFUSED = AccessRefused("no", code="AuthorizationFailed")
THROTTLED = Throttled("slow down", code="RateLimiting")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (REFUSED, "no"),
        (THROTTLED, "slow down"),
        ({}, "no list"),
        ({"data": None}, "no list"),
        ({"data": [{"found": 1}]}, "did not count"),
        ({"data": [None]}, "did not count"),
        ({"data": [{"subscriptionId": "a", "found": "many"}]}, "did not count"),
        ({**counts(a=1), "$skipToken": "1"}, "more subscriptions"),
        ({**counts(a=1), "resultTruncated": "true"}, "more subscriptions"),
    ],
)
async def test_graph_that_cannot_count_vouches_for_nothing(answer: Any, said: str) -> None:
    graph, api = graph_of("ab"), Answers(pages=[answer])
    assert [await graph.take(api, one) for one in "ab"] == [None, None]
    assert said in str(graph.error)
    assert len(api.asked) == 1


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (THROTTLED, "slow down"),
        ({"data": "text"}, "no list"),
        (rows("b/1", "x/1"), "not asked for"),
        (rows("a/1", "b/1"), "not asked for"),  # the answer before, once more
        ({"data": [{"id": "b/2"}]}, "without an id"),
        ({"data": [{"subscriptionId": "b"}]}, "without an id"),
        ({"data": [None]}, "without an id"),
    ],
)
async def test_graph_that_fails_midway_vouches_for_what_it_had_answered(
    answer: Any, said: str
) -> None:
    graph = graph_of("abcd")
    api = Answers(pages=[counts(a=1, b=2, c=1, d=0), rows("a/1"), answer])
    assert [await graph.take(api, one) for one in "abcd"] == [["a/1"], None, None, []]
    assert said in str(graph.error)
    assert len(api.asked) == 3


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize("cut", [{"$skipToken": "on"}, {"resultTruncated": "true"}])
async def test_answer_that_is_cut_vouches_for_none_of_its_subscriptions(cut: Any) -> None:
    graph = graph_of("abc")
    pages = [counts(a=1, b=1, c=1), rows("a/1", "b/1", **cut), rows("c/1")]
    api = Answers(pages=pages)
    assert [await graph.take(api, one) for one in "abc"] == [None, None, ["c/1"]]
    assert graph.error is None


async def test_answers_that_are_too_large_are_halved() -> None:
    too_large = CloudError("large", code="ResponsePayloadTooLarge")
    graph = graph_of("abc")
    pages = [counts(a=1, b=2, c=1), too_large, too_large, rows("b/1", "b/2", "c/1")]
    api = Answers(pages=pages)
    assert [await graph.take(api, one) for one in "abc"] == [None, ["b/1", "b/2"], ["c/1"]]
    assert api.asked[1:] == [("a", "b", "c"), ("a",), ("b", "c")]
    assert graph.error is None


async def test_queries_are_sent_only_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds one answer and what is being taken, whatever the number of subscriptions."""
    monkeypatch.setattr("tasks.clouds.azure_graph.MOST_ROWS", 20)
    names = [f"{n:04}" for n in range(1000)]
    groups = [names[at : at + 10] for at in range(0, 1000, 10)]
    pages = [counts(**dict.fromkeys(names, 2))]
    pages += [rows(*(f"{name}/{n}" for name in group for n in (1, 2))) for group in groups]
    api, graph = Answers(pages=pages), SharedGraph(names, ["T/x"], lambda _, row: row["id"])
    most = 0
    for done, name in enumerate(names):
        assert await graph.take(api, name) == [f"{name}/1", f"{name}/2"]
        most = max(most, sum(map(len, graph._found.values())))
        assert len(api.asked) == done // 10 + 2
    assert most < 20


async def test_what_is_dropped_is_neither_asked_for_nor_kept() -> None:
    api, graph = Answers(pages=[counts(a=1, b=1), rows("b/1")]), graph_of("ab")
    graph.drop("a")
    assert await graph.take(api, "b") == ["b/1"]
    assert api.asked == [("a", "b"), ("b",)]
    assert await graph.take(api, "a") is None
    late = Answers(pages=[counts(a=1, b=1), rows("a/1", "b/1")])
    graph = graph_of("ab")
    assert await graph.take(late, "a") == ["a/1"]
    graph.drop("b")
    assert graph._found == {}


async def test_all_of_a_group_dropped_sends_no_query() -> None:
    api, graph = Answers(pages=[counts(a=1, b=1)]), graph_of("ab")
    waiting = asyncio.create_task(graph.take(api, "a"))
    await asyncio.sleep(0)
    graph.drop("a")
    graph.drop("b")
    assert await waiting is None
    assert len(api.asked) == 1


async def test_one_who_gives_up_waiting_takes_no_answer_from_the_others() -> None:
    api, graph = Answers(pages=[counts(a=1, b=1), rows("a/1", "b/1")]), graph_of("ab")
    let = asyncio.Event()
    ask = api.query

    async def slow(*args: Any, **more: Any) -> Any:
        await let.wait()
        return await ask(*args, **more)

    api.query = slow  # type: ignore[method-assign]
    first = asyncio.create_task(graph.take(api, "a"))
    second = asyncio.create_task(graph.take(api, "b"))
    await asyncio.sleep(0)
    first.cancel()
    let.set()
    assert await second == ["b/1"]
    assert first.cancelled()
    assert await graph.take(api, "a") == ["a/1"]


class Moving(Answers):
    """A graph over ``held``, in which ``changes`` come to pass, one after each answer."""

    def __init__(
        self, held: dict[str, set[str]], changes: Sequence[tuple[str, str]], top: int
    ) -> None:
        super().__init__()
        self.held = held
        self.changes = list(changes)
        self.top = top
        self.always = {one: set(ids) for one, ids in held.items()}
        self.ever = {one: set(ids) for one, ids in held.items()}

    async def query(self, query: str, subscriptions: Sequence[str], *, top: int) -> dict[str, Any]:
        if query.startswith("resourcecontainers"):
            answer = counts(**{one: len(self.held[one]) for one in subscriptions})
        else:
            ids = [f"{one}/{id}" for one in subscriptions for id in sorted(self.held[one])]
            answer = rows(*ids[: self.top], **({"$skipToken": "x"} if len(ids) > self.top else {}))
        if self.changes:
            subscription, id = self.changes.pop(0)
            self.held[subscription] ^= {id}
            self.ever[subscription] |= {id}
            self.always[subscription] &= self.held[subscription]
        return answer


HELD = st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("123456")), min_size=1)


@given(HELD, st.data(), st.integers(1, 8))
def test_what_comes_and_goes_meanwhile_makes_nothing_false(
    held: dict[str, set[str]], data: st.DataObject, top: int
) -> None:
    """What was there all the time is in it once; what never was is not; or nothing is said."""
    change = st.tuples(st.sampled_from(sorted(held)), st.sampled_from("123456789"))
    api = Moving(held, data.draw(st.lists(change, max_size=8)), top)

    async def read() -> dict[str, list[str] | None]:
        graph = graph_of("".join(held))
        return {one: await graph.take(api, one) for one in graph.subscriptions}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.clouds.azure_graph.MOST_ROWS", top)
        answers = asyncio.run(read())
    for one, found in answers.items():
        if found is not None:
            ids = [id.partition("/")[2] for id in found]
            assert len(ids) == len(set(ids))
            assert api.always[one] <= set(ids) <= api.ever[one]


def test_more_subscriptions_than_a_query_takes() -> None:
    with pytest.raises(ValueError, match="1000 subscriptions at most"):
        SharedGraph([str(n) for n in range(1001)], ["T/x"], lambda _, row: row)


@pytest.mark.parametrize(
    ("kinds", "many", "shares"),
    [([NSG, STORAGE], 50, True), ([NSG, STORAGE], 49, False), ([NSG], 1000, False)],
)
def test_graph_is_used_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, kinds: list[str], many: int, shares: bool
) -> None:
    monkeypatch.setattr(azure_collect, "FEWEST_GRAPH_SUBSCRIPTIONS", 50)
    assert (share_graph([str(n) for n in range(many)], kinds) is not None) is shares


# --- On the emulated cloud -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAzure]:
    """Twelve subscriptions, of which none is made to fail."""
    folder = tmp_path_factory.mktemp("azure")
    with EmulatedAzure(12, 103, folder, failing=False, graph=GraphOptions()) as emulated:
        emulated.graph.options.quota = 1000
        yield emulated


def source_of(cloud: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> AzureSource:
    told = cloud.description
    monkeypatch.setenv("TEST_AZURE_SECRET", told["scanner"]["client_secret"])
    return AzureSource(
        name="contoso",
        tenant=told["tenant"],
        client_id=told["scanner"]["client_id"],
        client_secret_env="TEST_AZURE_SECRET",
        authority=told["authority"],
        resource_manager=told["resource_manager"],
        audience=told["audience"],
        ca_file=str(cloud.ca_file),
    )


@pytest.fixture
def source(cloud: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> AzureSource:
    return source_of(cloud, monkeypatch)


def live(cloud: EmulatedAzure) -> list[str]:
    told = cloud.description["subscriptions"]
    return [one["id"] for one in told if one["state"] == "Enabled"]


def accounts(subscriptions: Sequence[str]) -> list[Account]:
    return [Account(Cloud.AZURE, one, source="contoso") for one in subscriptions]


def plain(found: AccountScan) -> Any:
    """What a scan says, without the etags and in order: a graph's rows have no etag."""
    resources = sorted((replace(one, etag="") for one in found.resources), key=lambda one: one.id)
    observations = sorted(found.observations, key=lambda one: (one.resource, one.rule))
    return found.account, resources, observations, found.coverage, found.failed


async def scan_all(source: AzureSource, subscriptions: Sequence[str]) -> dict[str, AccountScan]:
    async with Scanner(Inventory(azure=(source,))) as scanner:
        found = [scan async for scan in scanner.scan_all(accounts(subscriptions))]
    assert len(found) == len(subscriptions)
    return {scan.account.id: scan for scan in found}


async def scan_each(source: AzureSource, subscriptions: Sequence[str]) -> dict[str, AccountScan]:
    async with Scanner(Inventory(azure=(source,))) as scanner:
        return {one.id: await scanner.scan(one) for one in accounts(subscriptions)}


@pytest.mark.slow
async def test_graph_and_lists_say_the_same(cloud: EmulatedAzure, source: AzureSource) -> None:
    subscriptions, before = live(cloud), cloud.graph.queries
    shared = await scan_all(source, subscriptions)
    assert cloud.graph.queries == before + 2  # what there is, and the rows
    each = await scan_each(source, subscriptions)
    assert cloud.graph.queries == before + 2
    assert [plain(shared[one]) for one in subscriptions] == [plain(each[one]) for one in each]
    assert not any(scan.failed for scan in shared.values())
    # What the graph says counts as of earlier: it may not have heard of the last minutes.
    assert {scan.lag for scan in shared.values()} == {GRAPH_LAG_SECONDS}
    assert {scan.lag for scan in each.values()} == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind, one in COLLECTORS.items() if one.graph])
async def test_what_is_read_again_is_what_the_graph_gave(
    cloud: EmulatedAzure, source: AzureSource, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a resource would look changed whenever it is read the other way."""
    monkeypatch.delenv("SUTURE_RULES")  # a single resource is read with all its parts
    shared = await scan_all(source, live(cloud)[:3])
    found = [one for scan in shared.values() for one in scan.resources if one.kind == kind]
    assert found
    async with AzureApi(source) as api:
        for resource in found:
            again = await read_one(api, resource.account, kind, resource.id)
            assert replace(again, etag="") == resource
            assert again.fingerprint == resource.fingerprint


@pytest.mark.slow
async def test_inventory_may_leave_the_graph_out(cloud: EmulatedAzure, source: AzureSource) -> None:
    before = cloud.graph.queries
    shared = await scan_all(replace(source, graph=False), live(cloud)[:3])
    assert cloud.graph.queries == before
    assert not any(scan.failed for scan in shared.values())


@pytest.mark.slow
async def test_small_answers_and_a_quota_that_is_used_up(
    cloud: EmulatedAzure, source: AzureSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three queries a second: the reader waits for the quota, and no answer is refused."""
    monkeypatch.setattr("tasks.clouds.azure_graph.MOST_ROWS", 20)
    monkeypatch.setattr(cloud.graph, "options", GraphOptions(quota=3, window=1))
    monkeypatch.setattr(cloud.graph, "_quotas", {})
    refused = []
    monkeypatch.setattr(AzureApi, "_exchange", noting(AzureApi._exchange, refused))
    before = cloud.graph.queries
    shared = await scan_all(source, live(cloud))
    assert cloud.graph.queries > before + 4
    assert refused == []
    assert [plain(one) for one in (await scan_each(source, live(cloud))).values()] == [
        plain(shared[one]) for one in live(cloud)
    ]


def noting(exchange: Callable[..., Any], refused: list[Exception]) -> Callable[..., Any]:
    async def noted(*args: Any) -> Any:
        try:
            return await exchange(*args)
        except Exception as error:
            refused.append(error)
            raise

    return noted


@pytest.mark.slow
async def test_graph_that_stays_throttled_leaves_the_lists(
    cloud: EmulatedAzure,
    source: AzureSource,
    monkeypatch: pytest.MonkeyPatch,
    quick: Limits,
) -> None:
    monkeypatch.setattr(cloud.graph, "options", GraphOptions(quota=0, window=60))
    monkeypatch.setattr(cloud.graph, "_quotas", {})
    async with Scanner(Inventory(azure=(source,)), quick) as scanner:
        shared = {scan.account.id: scan async for scan in scanner.scan_all(accounts(live(cloud)))}
    each = await scan_each(source, live(cloud))
    assert {one: plain(scan) for one, scan in shared.items()} == {
        one: plain(scan) for one, scan in each.items()
    }
    assert all(any(one.etag for one in scan.resources) for scan in shared.values())  # by list


@pytest.mark.slow
async def test_lagging_graph_serves_the_fleet_and_not_the_single_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmulatedAzure(2, 9, tmp_path, graph=GraphOptions(lag=3600)) as cloud:
        source, (first, second) = source_of(cloud, monkeypatch), live(cloud)
        gone = next(iter(cloud.tenant.resources(first)))
        async with AzureApi(source) as api:  # the graph has seen the subscription before
            await api.get(f"/subscriptions/{first}", "2022-12-01")
        cloud.tenant.remove_resource(gone)
        shared = await scan_all(source, [first, second])
        assert gone.id.lower() in {one.id for one in shared[first].resources}
        each = await scan_each(source, [first])
        assert gone.id.lower() not in {one.id for one in each[first].resources}


# --- Access that is not whole --------------------------------------------------------------------


def give(cloud: EmulatedAzure, scope: str, principal: str, *actions: str) -> None:
    role = RoleDefinition(str(uuid.uuid4()), "Given", "", actions)
    cloud.tenant.access.assign(RoleAssignment(str(uuid.uuid4()), scope, principal, role))


BASE = ("Microsoft.Resources/subscriptions/read", "Microsoft.ResourceGraph/resources/read")
PERMISSIONS = "Microsoft.Authorization/permissions/read"
NSG_READ, STORAGE_READ = COLLECTORS[NSG].read, COLLECTORS[STORAGE].read


@pytest.fixture
def stranger(
    cloud: EmulatedAzure, source: AzureSource, monkeypatch: pytest.MonkeyPatch
) -> tuple[AzureSource, str]:
    """A source whose application has no role at all, and its principal."""
    scanner = cloud.tenant.principals[source.client_id]
    client, object_id, secret = str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
    principal = cloud.tenant.add_principal(type(scanner)(client, object_id, "stranger"))
    principal.add_secret(secret)
    monkeypatch.setenv("TEST_STRANGER_SECRET", secret)
    mine = replace(source, client_id=client, client_secret_env="TEST_STRANGER_SECRET")
    return mine, object_id


@pytest.mark.slow
async def test_one_that_refuses_among_many_is_never_clean(
    cloud: EmulatedAzure, stranger: tuple[AzureSource, str]
) -> None:
    source, principal = stranger
    whole, refusing, silent, *_ = live(cloud)
    for actions, where in (
        ((*BASE, PERMISSIONS, NSG_READ, STORAGE_READ), whole),
        ((*BASE, PERMISSIONS), refusing),
        ((*BASE, NSG_READ, STORAGE_READ), silent),  # reads all, but cannot be asked what it may
    ):
        give(cloud, f"/subscriptions/{where}", principal, *actions)
    nothing = live(cloud)[3]
    shared = await scan_all(source, [whole, refusing, silent, nothing])
    assert not shared[whole].failed
    assert not any(one.etag for one in shared[whole].resources)  # by the graph
    for refused in (refusing, nothing):
        assert shared[refused].failed.startswith("refused: ")
        assert "AuthorizationFailed" in shared[refused].failed
        assert shared[refused].coverage == ()
    by_list = shared[silent]
    assert [one.ok for one in by_list.coverage] == [True, True]
    assert any(one.etag for one in by_list.resources)


@pytest.mark.slow
async def test_kind_that_is_refused_stays_uncovered(
    cloud: EmulatedAzure, stranger: tuple[AzureSource, str]
) -> None:
    source, principal = stranger
    one, other, *_ = live(cloud)
    give(cloud, f"/subscriptions/{one}", principal, *BASE, PERMISSIONS, NSG_READ)
    give(cloud, f"/subscriptions/{other}", principal, *BASE, PERMISSIONS, STORAGE_READ)
    shared = await scan_all(source, [one, other])
    for subscription, kind in ((one, NSG), (other, STORAGE)):
        scan = shared[subscription]
        assert {covered.kind: covered.ok for covered in scan.coverage} == {
            NSG: kind == NSG,
            STORAGE: kind == STORAGE,
        }
        assert {resource.kind for resource in scan.resources} == {kind}
        (bad,) = [covered for covered in scan.coverage if not covered.ok]
        assert bad.reason.startswith("refused: ")


@pytest.mark.slow
@pytest.mark.parametrize("scan_all", [scan_all, scan_each])
@pytest.mark.parametrize("seen", [SecurityGroup, StorageAccount])
async def test_role_on_a_part_of_the_subscription_covers_nothing(
    cloud: EmulatedAzure, stranger: tuple[AzureSource, str], seen: type, scan_all: Any
) -> None:
    """ARM lists what such a role may read, and the graph shows it; neither tells of the rest."""
    kind = {SecurityGroup: NSG, StorageAccount: STORAGE}[seen]
    source, principal = stranger
    subscription = live(cloud)[0]
    part = next(one for one in cloud.tenant.resources(subscription) if isinstance(one, seen))
    give(cloud, f"/subscriptions/{subscription}", principal, *BASE, PERMISSIONS)
    give(cloud, part.id, principal, NSG_READ, STORAGE_READ, BASE[1])
    (scan,) = (await scan_all(source, [subscription])).values()
    assert scan.failed.startswith("refused: ")
    assert (scan.resources, scan.coverage) == ((), ())
    # With the other kind whole, the account is scanned, and this kind is still not covered.
    (other,) = {NSG, STORAGE} - {kind}
    give(cloud, f"/subscriptions/{subscription}", principal, COLLECTORS[other].read)
    (scan,) = (await scan_all(source, [subscription])).values()
    assert {one.kind: one.ok for one in scan.coverage} == {kind: False, other: True}
    assert {one.kind for one in scan.resources} == {other}
    (bad,) = [one for one in scan.coverage if not one.ok]
    assert bad.reason == (
        f"refused: {COLLECTORS[kind].read} is not allowed on the whole subscription"
    )


@pytest.mark.slow
async def test_disabled_and_unknown_subscriptions(
    cloud: EmulatedAzure, source: AzureSource
) -> None:
    nobody = str(uuid.uuid4())
    shared = await scan_all(source, [live(cloud)[0], nobody])
    assert not shared[live(cloud)[0]].failed
    assert "SubscriptionNotFound" in shared[nobody].failed


@pytest.mark.slow
async def test_throttled_subscription_is_not_pressed_for_lists(
    azure: EmulatedAzure,
    azure_source: AzureSource,
    quick: Limits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (throttled,) = [one for one, how in azure.failing.items() if how == "throttled"]
    asked = set()
    exchange = AzureApi._exchange

    async def noted(self: AzureApi, method: str, url: Any, *rest: Any) -> Any:
        asked.add(url.path.rpartition("/")[2])
        return await exchange(self, method, url, *rest)

    monkeypatch.setattr(AzureApi, "_exchange", noted)
    async with Scanner(Inventory(azure=(azure_source,)), quick) as scanner:
        (scan,) = [one async for one in scanner.scan_all(accounts([throttled]))]
    assert scan.failed.startswith("throttled: ")
    assert asked == {"permissions"}


# --- Many subscriptions --------------------------------------------------------------------------


class Tokens:
    async def get_token(self, _scope: str) -> AccessToken:
        return AccessToken("token", 4_000_000_000)

    async def __aenter__(self) -> Tokens:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None


@pytest.fixture
def counted(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A server for any number of subscriptions, each with one group; what it was asked."""
    monkeypatch.setattr(azure_credentials, "credential", lambda _source, _limits: Tokens())
    asked: list[list[str]] = []

    def group(subscription: str) -> dict[str, Any]:
        kind = COLLECTORS[NSG].type
        return {
            "id": f"/subscriptions/{subscription}/resourceGroups/rg/providers/{kind}/web",
            "name": "web",
            "type": kind.lower(),
            "location": "westeurope",
            "subscriptionId": subscription,
            "tags": None,
            "kind": "",
            "sku": None,
            "properties": {"securityRules": []},
        }

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/permissions"):
            return web.json_response({"value": [{"actions": ["*/read"]}]})
        body = await request.json()
        named = sorted(body["subscriptions"])
        if body["query"].startswith("resourcecontainers"):
            asked.append(named)
            data = [{"subscriptionId": one, "found": 1} for one in named]
        else:
            assert re.search("order by subscriptionId asc, id asc$", body["query"])
            data = [group(one) for one in named]
        text = json.dumps({"data": data, "resultTruncated": "false"})
        return web.Response(text=text, content_type="application/json")

    return lambda: (serve(answer), asked)


async def test_queries_take_a_thousand_subscriptions_each(counted: Any, quick: Limits) -> None:
    names = [str(uuid.UUID(int=n)) for n in range(2001)]
    serving, asked = counted()
    async with serving as url:
        inventory = Inventory(azure=(replace(SOURCE, resource_manager=url),))
        async with Scanner(inventory, quick) as scanner:
            seen = Counter[str]()
            async for scan in scanner.scan_all(accounts(names)):
                assert not scan.failed
                assert len(scan.resources) == 1
                seen[scan.account.id] += 1
            # One question each, and two queries for each thousand; the last one is alone.
            assert scanner.calls == len(names) + 2 * 3
    assert seen == Counter(names)
    assert [len(one) for one in asked] == [1000, 1000, 1]
    assert [one for named in asked for one in named] == names


async def test_slow_taker_slows_the_reading(counted: Any) -> None:
    names = [str(uuid.UUID(int=n)) for n in range(200)]
    serving, _ = counted()
    async with serving as url:
        inventory = Inventory(azure=(replace(SOURCE, resource_manager=url),))
        async with Scanner(inventory, Limits(accounts=4)) as scanner:
            async with aclosing(scanner.scan_all(accounts(names))) as scans:
                taken = 0
                async for _ in scans:
                    taken += 1
                    await asyncio.sleep(0.02)
                    assert scanner.calls <= taken + 4 + 2
                    if taken == 20:
                        break
            left = scanner.calls
            await asyncio.sleep(0.05)
            assert scanner.calls == left  # what was under way has ended with it


async def test_rows_become_resources() -> None:
    """A row of a type that nobody asked for spoils its subscription, not the others."""
    graph = share_graph(["a", "b"], [NSG, STORAGE])
    assert graph is not None
    strange = {"subscriptionId": "a", "id": "a/1", "type": "microsoft.compute/disks"}
    good = {
        "subscriptionId": "b",
        "id": "/B/1",
        "name": "1",
        "location": "West Europe",
        "type": "microsoft.storage/storageaccounts",
        "properties": {},
        "kind": "StorageV2",
        "sku": {"name": "x"},
        "tags": None,
    }
    api = Answers(pages=[counts(a=1, b=1), {"data": [strange, good]}])
    assert await graph.take(api, "a") is None
    found = await graph.take(api, "b")
    assert found is not None
    (resource,) = found
    assert isinstance(resource, Resource)
    assert (resource.kind, resource.id, resource.region) == (STORAGE, "/b/1", "westeurope")
    assert resource.config["location"] == "westeurope"
    assert (resource.tags, resource.etag) == ({}, "")
