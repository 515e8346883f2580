"""What was promised to a writer, held against what is there."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MARK = "soakword {document} r{revision} p{part} of {parts}"
_MARK = re.compile(r"soakword (\w+) r(\d+) p(\d+) of (\d+)")


def text_of(document: str, revision: int, parts: int) -> str:
    """A document in which every part says what it is; each part becomes a chunk of its own."""
    marks = (
        MARK.format(document=document, revision=revision, part=part, parts=parts)
        for part in range(parts)
    )
    return "\n\n".join(f"{mark} and some words that fill it up." for mark in marks)


@dataclass(frozen=True, slots=True)
class Seen:
    """A part of a document, as it was found."""

    document: str
    revision: int
    part: int
    parts: int


def marks(texts: Iterable[str]) -> list[Seen]:
    """The parts that texts hold."""
    return [
        Seen(document, int(revision), int(part), int(parts))
        for text in texts
        for document, revision, part, parts in _MARK.findall(text)
    ]


@dataclass(slots=True)
class Ledger:
    """For every document the states that it may be in.

    The last acknowledged one, and what was sent since and not acknowledged. A state is the number
    of an attempt; deletions are attempts too.
    """

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)
    _allowed: dict[str, dict[int, int]] = field(default_factory=dict)
    """Document -> attempt -> its number of parts; 0 for a deletion."""
    _attempts: Counter[str] = field(default_factory=Counter)

    def attempt(self, document: str, parts: int) -> int:
        """Something is about to be sent; returns its number. `parts` is 0 for a deletion."""
        self._attempts[document] += 1
        number = self._attempts[document]
        self._allowed.setdefault(document, {0: 0})[number] = parts
        return number

    def acknowledge(self, document: str, number: int) -> None:
        """It was confirmed: nothing older may be there any more."""
        self.acknowledged += 1
        self._forget_before(document, number)

    def judge(self, views: Mapping[str, Sequence[Seen]]) -> None:
        """Compare what is there, as seen in several ways, such as by search and by listing."""
        documents = set(self._allowed)
        for seen in views.values():
            documents |= {one.document for one in seen}
        for document in sorted(documents):
            for view, seen in views.items():
                self._judge(document, [one for one in seen if one.document == document], view)

    def _judge(self, document: str, seen: Sequence[Seen], view: str) -> None:
        allowed = self._allowed.get(document, {0: 0})
        by_revision = defaultdict(list)
        for one in seen:
            by_revision[one.revision].append(one)
        if not by_revision:
            deletions = [number for number, parts in allowed.items() if not parts]
            if deletions:
                self._forget_before(document, min(deletions))
            else:
                self.lost += 1
                self._problem(f"{document} is gone", view, allowed)
            return
        if len(by_revision) > 1:
            self.doubled += 1
            self._problem(f"{document} is there as {sorted(by_revision)}", view, allowed)
            return
        ((revision, found),) = by_revision.items()
        expected = range(allowed.get(revision, found[0].parts))
        parts = sorted(one.part for one in found)
        if len(set(parts)) < len(parts):
            self.doubled += 1
            self._problem(f"{document} r{revision} has the parts {parts}", view, allowed)
        elif parts != list(expected):
            self.torn += 1
            self._problem(f"{document} r{revision} has only {parts}", view, allowed)
        elif not allowed.get(revision):
            self.lost += 1
            self._problem(f"{document} is r{revision}, an older or unknown one", view, allowed)
        else:
            self._forget_before(document, revision)

    def _problem(self, what: str, view: str, allowed: Mapping[int, int]) -> None:
        self.problems.append(f"round {self.rounds}, by {view}: {what}; allowed: {dict(allowed)}")

    def _forget_before(self, document: str, number: int) -> None:
        allowed = self._allowed[document]
        self._allowed[document] = {one: parts for one, parts in allowed.items() if one >= number}

    def __str__(self) -> str:
        kills = ", ".join(f"{target} {count}" for target, count in sorted(self.kills.items()))
        return (
            f"{self.rounds} rounds; killed: {kills}; {self.acknowledged} acknowledged; "
            f"{self.lost} lost, {self.torn} torn, {self.doubled} doubled"
        )
