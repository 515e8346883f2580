"""What to do so that a collection holds what its source does: pure, of digests alone."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Move:
    """A document that gets another id."""

    old: str
    new: str
    replaces: bool
    """Whether a document that is not wanted any more has the new id."""


@dataclass(slots=True)
class Plan:
    """What to do: the moves first, in this order; then the rest in any."""

    unchanged: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def make_plan(
    local: Mapping[str, str],
    remote: Mapping[str, str],
    *,
    kept: Set[str] = frozenset(),
    may_move: Callable[[str, str], bool] = lambda old, new: True,
) -> Plan:
    """Compare digests by id.

    Args:
        local: what the source has.
        remote: what the collection has of it.
        kept: ids in the collection that must stay as they are.
        may_move: whether a document may go from an id to another one as it is.
    """
    plan = Plan()
    wanted = []
    for id in sorted(local):
        if remote.get(id) == local[id] or id in kept:
            plan.unchanged.append(id)
        else:
            wanted.append(id)
    leaving = set(remote) - set(plan.unchanged) - kept
    moves = _pair(wanted, leaving, local, remote, may_move)
    plan.moves = _order(moves, remote)
    moved = {move.new for move in plan.moves}
    taken = {move.old for move in plan.moves}
    for id in wanted:
        if id not in moved:
            (plan.changed if id in remote and id not in taken else plan.added).append(id)
    plan.deleted = sorted(leaving - set(local) - taken)
    return plan


def _pair(
    wanted: list[str],
    leaving: Set[str],
    local: Mapping[str, str],
    remote: Mapping[str, str],
    may_move: Callable[[str, str], bool],
) -> dict[str, str]:
    """New ids with the old ids that their contents have now."""
    donors: dict[str, list[str]] = defaultdict(list)
    # Those whose own id is wanted no more come first: moving them leaves nothing to do.
    for id in sorted(leaving, key=lambda one: (one in local, one)):
        donors[remote[id]].append(id)
    pairs: dict[str, str] = {}
    for new in wanted:
        fitting = [old for old in donors.get(local[new], ()) if may_move(old, new)]
        if fitting:
            pairs[new] = fitting[0]
            donors[local[new]].remove(fitting[0])
    return pairs


def _order(pairs: Mapping[str, str], remote: Mapping[str, str]) -> list[Move]:
    """Moves such that none replaces what a later one takes; those of a circle are left out."""
    left = dict(pairs)
    moves: list[Move] = []
    gone: set[str] = set()
    while left:
        waiting = set(left.values())
        ready = [new for new in left if new not in waiting]
        if not ready:
            break
        for new in ready:
            old = left.pop(new)
            moves.append(Move(old, new, replaces=new in remote and new not in gone))
            gone.add(old)
    return moves
