"""The word index itself: phrases, fields, commits, merges and what a killed process leaves."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.retrieve.adapters.conditions import METADATA, facets
from services.retrieve.adapters.points import Allowed
from services.retrieve.adapters.terms import TermsAnalyzer
from services.retrieve.adapters.whoosh import merge as merging
from services.retrieve.adapters.whoosh.merge import FACTOR, SMALLEST, due
from services.retrieve.adapters.whoosh.words import WordIndex
from services.retrieve.ports import Chunk, Condition, FieldTerms, Filter
from services.retrieve.texts import field_terms
from services.retrieve.wording import parse, word_query

ANALYZER = TermsAnalyzer()
EVERYTHING = Allowed()
REPOSITORY = Path(__file__).resolve().parents[3]


def chunk(index: int, text: str, title: str = "", heading: str = "", **payload):
    terms = field_terms(ANALYZER, title, Chunk(index, text, text, heading, None, "en"))
    facts = {"document_id": f"d{index}", "title": title, "heading": heading, "language": "en"}
    return index, facts | {METADATA: facets("{}")} | payload, terms


def ask(index: WordIndex, text: str, allowed: Allowed = EVERYTHING, limit: int = 10) -> list[int]:
    wording = parse(text)
    vector = ANALYZER.query(wording.plain, "en")
    asked = word_query(wording, ANALYZER, vector, vector)
    return [point for point, _ in index.search(asked, limit, allowed)]


@pytest.fixture
def index(tmp_path):
    index = WordIndex(tmp_path / "words")
    index.add(
        [
            chunk(1, "A rolling update replaces pods one by one.", "Deployments", "Updates"),
            chunk(2, "Every update of a rolling stock is a long update.", "Railways", "Stock"),
            chunk(3, "Probes tell whether a pod is ready.", "Probes", "Readiness"),
            chunk(4, "東京都庁舎は新宿区にある。", "東京の建物", "庁舎"),
            chunk(5, "京都市役所は中京区にある。", "京都の建物", "役所"),
        ]
    )
    index.flush()
    yield index
    index.close()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("probes ready", [3]),
        ('"rolling update"', [1]),
        ('"update rolling"', [2]),  # function words are not looked at
        ('"stock rolling"', []),
        ('"rolling updates" pods', [1]),
        ("title:probes", [3]),
        ("heading:probes", []),
        ("heading:stock update", [2]),
        ('title:deployments "rolling stock"', []),
        ("body:probes", [3]),
        ('"東京都庁舎"', [4]),
        ('"庁舎東京都"', []),
        ("title:京都", [5]),
        ("title:nothing", []),
        ("nowhere", []),
    ],
)
def test_phrases_and_fields(index, query, found):
    assert ask(index, query) == found


def test_words_in_more_fields_weigh_more(index):
    assert ask(index, "update")[0] == 1  # in the heading too, and the text is shorter
    assert set(ask(index, "update")) == {1, 2}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60))
def test_no_query_raises(index, text):
    assert set(ask(index, text)) <= {1, 2, 3, 4, 5}


def test_the_hits_that_may_be_seen_are_as_many_as_asked_for(index):
    index.add(
        chunk(n, "update", access=["group:a"] if n % 2 else None)[:3] for n in range(100, 400)
    )
    index.flush()
    hidden = frozenset(range(100, 380))
    assert len(ask(index, "update", Allowed(hidden=hidden), limit=15)) == 15
    assert len(ask(index, "update", Allowed(hidden=frozenset(range(1, 400))))) == 0
    seen = ask(index, "update", Allowed(readable=()), limit=200)
    assert {one % 2 for one in seen if one >= 100} == {0}
    assert len(seen) == 152
    assert len(ask(index, "update", Allowed(readable=("group:a",)), limit=400)) == 302
    nobody = Filter(must=(Condition("document_id", equals="none"),))
    assert ask(index, "update", Allowed(filter=nobody)) == []


def test_what_is_deleted_is_gone_before_the_commit(index):
    index.delete([1])
    assert ask(index, "update") == [2]
    index.flush()
    assert ask(index, "update") == [2]
    assert index.count() == 4


def test_a_chunk_is_replaced_and_an_unfinished_one_can_be_deleted(index):
    index.add([chunk(1, "nothing of the kind")])
    index.add([chunk(6, "update"), chunk(7, "update")])
    assert set(ask(index, "update")) == {2}
    index.delete([6])
    index.flush()
    assert set(ask(index, "update")) == {2, 7}
    assert ask(index, "kind") == [1]


def test_what_was_not_flushed_is_lost_and_no_lock_is_left(tmp_path):
    writing = (
        "import os, signal, sys, pathlib\n"
        "from tests.unit.retrieve.test_whoosh import *\n"
        "index = WordIndex(pathlib.Path(sys.argv[1]))\n"
        "index.add([chunk(1, 'update')])\n"
        "index.flush()\n"
        "index.add([chunk(2, 'update')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", writing, str(tmp_path)], cwd=REPOSITORY, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "MAIN.tmp").exists()
    (tmp_path / merging.MERGING).mkdir()
    (tmp_path / "_MAIN_9.toc.17.3").write_bytes(b"half")
    again = WordIndex(tmp_path)
    assert ask(again, "update") == [1]
    again.add([chunk(3, "update")])
    again.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert len([name for name in names if name.endswith(".seg")]) == 2
    assert merging.MERGING not in names


def test_a_commit_that_fails_leaves_the_index_as_it_was(index, monkeypatch):
    index.add([chunk(9, "update")])
    with monkeypatch.context() as full:
        full.setattr("whoosh.writing.SegmentWriter._commit_toc", _no_space)
        with pytest.raises(OSError, match="full"):
            index.flush()
    assert set(ask(index, "update")) == {1, 2}
    index.add([chunk(10, "update")])
    index.flush()
    assert set(ask(index, "update")) == {1, 2, 10}


def _no_space(*_):
    raise OSError("the disk is full")


def test_segments_are_merged_by_size():
    assert due([(f"s{n}", 10) for n in range(FACTOR - 1)]) == []
    assert due([(f"s{n}", 10) for n in range(FACTOR)]) == [f"s{n}" for n in range(FACTOR)]
    mixed = [("large", 10 * SMALLEST), *((f"s{n}", 10) for n in range(FACTOR))]
    assert due(mixed) == [f"s{n}" for n in range(FACTOR)]
    assert due([(f"s{n}", 200_000) for n in range(20)]) == []


def test_merging_changes_no_answer_and_keeps_what_was_deleted_meanwhile(tmp_path):
    index = WordIndex(tmp_path)
    for n in range(FACTOR):
        index.add([chunk(n, f"update number{n}"), chunk(100 + n, "other")])
        index.flush()
    assert index._merge is not None
    index.delete([3])
    assert index._merge.wait()
    index.delete([104])
    index.add([chunk(50, "update late")])
    index.flush()
    assert index.segments() == 2
    assert set(ask(index, "update", limit=20)) == {0, 1, 2, 4, 5, 6, 7, 50}
    assert 104 not in ask(index, "other", limit=20)
    assert index.count() == 2 * FACTOR - 1
    index.close()
    again = WordIndex(tmp_path)
    assert set(ask(again, "update", limit=20)) == {0, 1, 2, 4, 5, 6, 7, 50}
    again.close()


def test_a_search_takes_over_what_was_merged(tmp_path):
    index = WordIndex(tmp_path)
    for n in range(FACTOR):
        index.add([chunk(n, f"update number{n}")])
        index.flush()
    assert index._merge is not None
    index._merge.wait()
    assert set(ask(index, "update", limit=20)) == set(range(FACTOR))
    assert index.segments() == 1
    index.close()


def test_a_long_query_keeps_its_rarest_words(index):
    common = " ".join(f"x{n}" for n in range(300))
    index.add(chunk(1000 + n, common) for n in range(20))
    index.flush()
    assert 3 in ask(index, f"{common} probes", limit=50)


def test_terms_of_any_kind_are_indexed(tmp_path):
    index = WordIndex(tmp_path)
    odd = FieldTerms((), (), ("\0東京", "a" * 5000, "😀", ""), ())
    index.add([(1, {"page": 10**400, "n": float("nan")}, odd)])
    index.close()
