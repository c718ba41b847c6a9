"""What every store promises, run over each of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.kinds.config import Config
from meshd.kinds.mesh import Mesh, Routing
from meshd.kinds.proxy_insights import DataplaneInsight
from meshd.model.errors import ConflictError, MeshdError, NotFoundError
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Create, Delete, Edit, Put, Store, Update


def config(name: str, text: str = "", **more: object) -> Resource:
    return Resource(ResourceKey("Config", "", name), Config(config=text), **more)  # type: ignore[arg-type]


def mesh(name: str = "default", **routing: bool) -> Resource:
    return Resource(ResourceKey("Mesh", "", name), Mesh(routing=Routing(**routing)))


def insight(name: str, of_mesh: str = "default", owner: ResourceKey | None = None) -> Resource:
    return Resource(ResourceKey("DataplaneInsight", of_mesh, name), DataplaneInsight(), owner=owner)


async def test_create_stamps_version_and_times(open_store, clock):
    async with open_store() as store:
        (stored,) = await store.write([Create(config("a", "x"))])
        assert stored is not None
        assert stored.version > 0
        assert stored.created == stored.modified == clock.time
        assert store.get(stored.key) == stored


async def test_create_of_what_exists_conflicts_and_names_it(open_store):
    async with open_store() as store:
        await store.write([Create(config("a"))])
        with pytest.raises(ConflictError, match="Config a exists already, at version 1"):
            await store.write([Create(config("a", "other"))])
        assert store.get(config("a").key).spec.config == ""


async def test_update_moves_version_and_modified_but_not_created(open_store):
    async with open_store() as store:
        (first,) = await store.write([Create(config("a", "x"))])
        (second,) = await store.write([Update(replace(first, spec=Config(config="y")))])
        assert second.version > first.version
        assert second.created == first.created
        assert second.modified > first.modified


async def test_update_from_an_old_version_conflicts(open_store):
    async with open_store() as store:
        (first,) = await store.write([Create(config("a", "x"))])
        await store.write([Update(replace(first, spec=Config(config="y")))])
        with pytest.raises(ConflictError, match="at version 2, the update was made from version 1"):
            await store.write([Update(replace(first, spec=Config(config="z")))])
        assert store.get(first.key).spec.config == "y"


async def test_a_version_never_comes_back_for_a_key_made_again(open_store):
    async with open_store() as store:
        (first,) = await store.write([Create(config("a", "x"))])
        await store.write([Delete(first.key)])
        (again,) = await store.write([Create(config("a", "x"))])
        assert again.version > first.version
        with pytest.raises(ConflictError):
            await store.write([Update(replace(first, spec=Config(config="z")))])


@pytest.mark.parametrize("edit", [Update(config("gone")), Delete(config("gone").key)])
async def test_edits_of_what_is_absent_are_not_found(open_store, edit):
    async with open_store() as store:
        with pytest.raises(NotFoundError, match="Config gone"):
            await store.write([edit])


async def test_delete_expects_its_version_and_may_expect_nothing(open_store):
    async with open_store() as store:
        (stored,) = await store.write([Create(config("a"))])
        with pytest.raises(ConflictError):
            await store.write([Delete(stored.key, version=stored.version + 1)])
        assert await store.write([Delete(stored.key, version=stored.version)]) == (None,)
        assert await store.write([Delete(stored.key, missing_ok=True)]) == (None,)
        assert store.get(stored.key) is None


async def test_put_takes_whatever_is_there(open_store):
    async with open_store() as store:
        (first,) = await store.write([Put(config("a", "x"))])
        (second,) = await store.write([Put(config("a", "y"))])
        assert second.created == first.created
        assert second.spec.config == "y"


@pytest.mark.parametrize("how", ["put", "update"])
async def test_equal_content_changes_nothing_and_is_not_announced(open_store, how):
    async with open_store() as store:
        (first,) = await store.write([Put(config("a", "x", labels={"team": "a"}))])
        with store.watch() as feed:
            same = replace(first, labels={"team": "a"}, spec=Config(config="x"), created=None, modified=None)
            (again,) = await store.write([Put(same) if how == "put" else Update(same)])
            assert again == first
            assert feed.take_now() == frozenset()


@pytest.mark.parametrize(
    "change", [{"labels": {"a": "b"}}, {"wire": b"x"}, {"status": Config(config="s")}, {"spec": Config(config="y")}]
)
async def test_every_part_of_the_content_counts(open_store, change):
    async with open_store() as store:
        (first,) = await store.write([Put(Resource(ResourceKey("Widget", "", "a"), Config(config="x")))])
        (second,) = await store.write([Put(replace(first, **change))])
        assert second.version > first.version


async def test_a_batch_is_all_or_nothing(open_store):
    async with open_store() as store:
        with store.watch() as feed:
            with pytest.raises(NotFoundError):
                await store.write([Create(config("a")), Create(config("b")), Delete(config("gone").key)])
            assert store.list("Config") == ()
            assert feed.take_now() == frozenset()


async def test_edits_of_a_batch_see_those_before_them(open_store):
    async with open_store() as store:
        results = await store.write([Create(config("a", "1")), Put(config("a", "2")), Delete(config("a").key)])
        assert [r and r.spec.config for r in results] == ["1", "2", None]
        assert store.get(config("a").key) is None


async def test_what_a_batch_makes_and_removes_is_not_announced(open_store):
    async with open_store() as store:
        with store.watch() as feed:
            await store.write([Create(config("a")), Delete(config("a").key), Put(config("b"))])
            assert feed.take_now() == {config("b").key}


async def test_deleting_an_owner_deletes_all_it_owns_down_the_line(open_store):
    async with open_store() as store:
        owner, child = mesh().key, insight("a").key
        await store.write([Create(mesh()), Create(insight("a", owner=owner)), Create(insight("b", owner=child))])
        await store.write([Create(insight("c"))])
        assert [r.key.name for r in store.owned_by(owner)] == ["a"]
        with store.watch() as feed:
            await store.write([Delete(owner)])
            assert feed.take_now() == {owner, child, insight("b").key}
        assert [r.key.name for r in store.list("DataplaneInsight")] == ["c"]
        assert store.owned_by(owner) == ()


async def test_an_owner_must_exist_after_the_batch(open_store):
    async with open_store() as store:
        with pytest.raises(NotFoundError, match="its owner Mesh default does not exist"):
            await store.write([Create(insight("a", owner=mesh().key))])
        await store.write([Create(insight("a", owner=mesh().key)), Create(mesh())])
        with pytest.raises(NotFoundError, match="owner"):
            await store.write([Delete(mesh().key), Put(insight("b", owner=mesh().key))])
        assert len(store.owned_by(mesh().key)) == 1


async def test_an_owner_ring_is_deleted_whole(open_store):
    async with open_store() as store:
        a, b = insight("a"), insight("b")
        await store.write([Put(replace(a, owner=b.key)), Put(replace(b, owner=a.key))])
        await store.write([Delete(a.key)])
        assert store.list("DataplaneInsight") == ()


async def test_changing_the_owner_moves_it(open_store):
    async with open_store() as store:
        await store.write([Create(mesh("a")), Create(mesh("b")), Put(insight("i", owner=mesh("a").key))])
        await store.write([Put(insight("i", owner=mesh("b").key))])
        await store.write([Delete(mesh("a").key)])
        assert [r.key.name for r in store.owned_by(mesh("b").key)] == ["i"]


async def test_lists_are_sorted_and_filtered_by_mesh(open_store):
    async with open_store() as store:
        for name, of_mesh in (("b", "two"), ("a", "two"), ("z", "one")):
            await store.write([Put(insight(name, of_mesh))])
        assert [r.key.name for r in store.list("DataplaneInsight")] == ["z", "a", "b"]
        assert [r.key.name for r in store.list("DataplaneInsight", "two")] == ["a", "b"]
        assert store.list("DataplaneInsight", "none") == ()
        await store.write([Delete(insight("a", "two").key)])
        assert [r.key.name for r in store.list("DataplaneInsight", "two")] == ["b"]


async def test_a_feed_gets_only_its_kinds_and_only_from_now_on(open_store):
    async with open_store() as store:
        await store.write([Put(config("before"))])
        with store.watch(["Mesh"]) as meshes, store.watch() as everything:
            await store.write([Put(config("a")), Put(mesh())])
            assert meshes.take_now() == {mesh().key}
            assert everything.take_now() == {mesh().key, config("a").key}


async def test_a_feed_gathers_while_its_reader_is_busy(open_store):
    async with open_store() as store:
        with store.watch() as feed:
            await store.write([Put(config("a"))])
            await store.write([Put(config("b")), Delete(config("a").key)])
            assert await feed.take() == {config("a").key, config("b").key}
            assert feed.take_now() == frozenset()


async def test_a_waiting_reader_wakes_after_the_commit_is_visible(open_store):
    async with open_store() as store:
        seen: list[Resource | None] = []

        async def read() -> None:
            with store.watch() as feed:
                ready.set()
                seen.extend(store.get(key) for key in await feed.take())

        ready = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await ready.wait()
            await store.write([Put(config("a", "x"))])
        assert [r and r.spec.config for r in seen] == ["x"]


async def test_a_closed_feed_is_not_marked_any_more(open_store):
    async with open_store() as store:
        with store.watch() as feed:
            pass
        await store.write([Put(config("a"))])
        assert feed.take_now() == frozenset()


async def test_a_write_cancelled_before_it_began_changes_nothing(open_store):
    async with open_store() as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.write([Put(config("a"))])
        assert scope.cancelled_caught
        assert store.get(config("a").key) is None


async def test_concurrent_writers_of_one_resource_lose_no_update(open_store):
    async with open_store() as store:
        await store.write([Create(config("count", "0"))])

        async def add() -> None:
            while True:
                current = store.get(config("count").key)
                await trio.lowlevel.checkpoint()
                try:
                    await store.write([Update(replace(current, spec=Config(config=str(int(current.spec.config) + 1))))])
                except ConflictError:
                    continue
                return

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(add)
        assert store.get(config("count").key).spec.config == "20"


async def test_one_bad_write_among_concurrent_ones_fails_alone(open_store):
    async with open_store() as store:
        failed: list[str] = []

        async def write(name: str) -> None:
            try:
                await store.write([Create(config(name.strip("!")))] + [Update(config("gone"))] * name.count("!"))
            except NotFoundError:
                failed.append(name)

        async with trio.open_nursery() as nursery:
            for name in ("a", "b!", "c", "d!", "e"):
                nursery.start_soon(write, name)
        assert sorted(failed) == ["b!", "d!"]
        assert [r.key.name for r in store.list("Config")] == ["a", "c", "e"]


NAMES = st.sampled_from(["a", "b", "c"])
SOME_EDITS = st.lists(
    st.tuples(st.sampled_from(["create", "update", "stale", "put", "delete"]), NAMES, st.sampled_from(["x", "y"])),
    min_size=1,
    max_size=4,
)


class Model:
    """A store as a dict says it: what the real ones must agree with."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, int]] = {}
        self.revision = 0

    def write(self, edits: Sequence[tuple[str, str, str]]) -> frozenset[str] | None:
        """Names that changed, or None if the batch is refused."""
        rows, revision, before = dict(self.rows), self.revision, dict(self.rows)
        for what, name, text in edits:
            here = rows.get(name)
            if (what == "create" and here) or (what in ("update", "stale", "delete") and not here) or what == "stale":
                return None
            revision += 1
            if what == "delete":
                del rows[name]
            elif here is None or here[0] != text:
                rows[name] = (text, revision)
            else:
                revision -= 1
        changed = frozenset(n for n in rows.keys() | before.keys() if rows.get(n) != before.get(n))
        if changed:
            self.rows, self.revision = rows, revision
        return changed


def edit_of(store: Store, staged: dict[str, int], what: str, name: str, text: str) -> Edit:
    key = config(name).key
    stored = store.get(key)
    version = stored.version if stored else 0
    match what:
        case "create":
            return Create(config(name, text))
        case "put":
            return Put(config(name, text))
        case "delete":
            return Delete(key)
        case "stale":
            return Update(config(name, text, version=version + 1000))
        case _:
            return Update(config(name, text, version=staged.get(name, version)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SOME_EDITS, max_size=8))
async def test_agrees_with_a_dict(open_store, tmp_path, batches):
    for leftover in tmp_path.iterdir():
        leftover.unlink()
    model = Model()
    async with open_store() as store:
        for batch in batches:
            # an update in the middle of a batch must name the version that the batch itself gave: ask the model
            edits: list[Edit] = []
            trial = Model()
            trial.rows, trial.revision = dict(model.rows), model.revision
            for step in batch:
                staged = {name: row[1] for name, row in trial.rows.items()}
                edits.append(edit_of(store, staged, *step))
                trial.write([step])
            with store.watch() as feed:
                try:
                    await store.write(edits)
                    accepted = True
                except MeshdError:
                    accepted = False
                expected = model.write(batch)
                assert accepted == (expected is not None)
                assert {k.name for k in feed.take_now()} == (expected or frozenset())
            assert {r.key.name: (r.spec.config, r.version) for r in store.list("Config")} == model.rows
