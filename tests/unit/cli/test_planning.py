"""What a sync decides, of digests alone."""

from hypothesis import given
from hypothesis import strategies as st

from cli.syncing.planning import Move, Plan, make_plan


def carry_out(plan: Plan, local: dict[str, str], remote: dict[str, str]) -> dict[str, str]:
    """What the collection has afterwards, refusing what the mesh would."""
    held = dict(remote)
    for move in plan.moves:
        assert move.old in held
        assert (move.new in held) == move.replaces
        held[move.new] = held.pop(move.old)
    for id in [*plan.added, *plan.changed]:
        assert (id in held) == (id in plan.changed)
        held[id] = local[id]
    for id in plan.deleted:
        del held[id]
    return held


def test_what_is_new_changed_gone_and_as_it_was() -> None:
    plan = make_plan({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "0", "d": "4"})
    assert (plan.unchanged, plan.changed, plan.added, plan.deleted, plan.moves) == (
        ["a"], ["b"], ["c"], ["d"], [],
    )  # fmt: skip


def test_a_renamed_file_moves() -> None:
    plan = make_plan({"new": "1", "a": "2"}, {"old": "1", "a": "2"})
    assert plan.moves == [Move("old", "new", replaces=False)]
    assert [*plan.added, *plan.changed, *plan.deleted] == []


def test_a_file_moved_over_another_replaces_it() -> None:
    plan = make_plan({"b": "1"}, {"a": "1", "b": "2"})
    assert plan.moves == [Move("a", "b", replaces=True)]
    assert not plan.deleted


def test_rotated_files_move_from_the_end() -> None:
    plan = make_plan({"l1": "new", "l2": "1", "l3": "2"}, {"l1": "1", "l2": "2", "l3": "3"})
    assert plan.moves == [Move("l2", "l3", replaces=True), Move("l1", "l2", replaces=False)]
    assert (plan.added, plan.changed) == (["l1"], [])


def test_files_that_changed_places_are_sent() -> None:
    plan = make_plan({"a": "2", "b": "1"}, {"a": "1", "b": "2"})
    assert (plan.changed, plan.moves, plan.deleted) == (["a", "b"], [], [])


def test_a_copy_is_sent_and_the_original_stays() -> None:
    plan = make_plan({"a": "1", "b": "1"}, {"a": "1"})
    assert (plan.unchanged, plan.added, plan.moves) == (["a"], ["b"], [])


def test_what_could_not_be_read_stays() -> None:
    plan = make_plan({"b": "1"}, {"a": "1", "c": "2"}, kept={"a", "c"})
    assert (plan.added, plan.deleted, plan.moves) == (["b"], [], [])


def test_a_move_that_is_not_allowed_is_a_new_file() -> None:
    plan = make_plan({"a.md": "1"}, {"a.txt": "1"}, may_move=lambda old, new: False)
    assert (plan.added, plan.deleted, plan.moves) == (["a.md"], ["a.txt"], [])


SIDES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"), max_size=6)


@given(SIDES, SIDES, st.sets(st.sampled_from("abcdef")))
def test_a_plan_makes_the_collection_as_the_source_is(local, remote, unread) -> None:
    kept = unread & remote.keys() - local.keys()
    plan = make_plan(local, remote, kept=kept)
    left = {id: remote[id] for id in kept}
    assert carry_out(plan, local, remote) == {**left, **local}
    wanted = {id for id in local if remote.get(id) != local[id]}
    assert len(plan.unchanged) == len(local) - len(wanted)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(), max_size=6))
def test_renaming_everything_sends_nothing(held) -> None:
    remote = {id: str(digest) for id, digest in held.items()}
    local = {f"new/{id}": digest for id, digest in remote.items()}
    plan = make_plan(local, remote)
    assert len(plan.moves) == len(remote)
    assert [*plan.added, *plan.changed, *plan.deleted] == []
