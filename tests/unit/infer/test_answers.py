import json
import random
import re
import unicodedata

import pytest

from services.infer.extraction.answers import answer
from services.infer.extraction.questions import Kind, holds, kind_of
from services.infer.extraction.sentences import MAX_SENTENCE, sentences_of
from services.infer.ports import Passage

PORTS = Passage(
    1,
    "# Ports\n\nThe gateway conducts the services. It answers on port 8000 by default. Kong sits "
    "in front of it.",
    title="Operations",
    language="en",
)
ENGINES = Passage(
    2,
    "推論サービスはポート50053で待ち受けます。既定のエンジンは抽出型で、モデルを必要としません。"
    "ｇＲＰＣで話します。",
    title="エンジン",
    language="ja",
)
HISTORY = Passage(
    3,
    "東大寺は奈良県奈良市にある寺院である。聖武天皇が8世紀に建立した。大仏の高さは約15メートルである。",
    title="東大寺",
    language="ja",
)
ALL = (PORTS, ENGINES, HISTORY)


@pytest.mark.parametrize(
    ("question", "expected", "marker"),
    [
        ("Which port does the gateway answer on?", "port 8000", 1),
        ("What sits in front of the gateway?", "Kong", 1),
        ("推論サービスのポート番号は？", "50053", 2),
        ("既定のエンジンにモデルは必要ですか。", "必要としません", 2),
        ("大仏の高さはどれくらいですか？", "約15メートル", 3),
        ("東大寺はいつ建立されたか。", "8世紀", 3),
        ("東大寺はどこにありますか", "奈良県", 3),
    ],
)
def test_the_answer_carries_the_words_and_the_marker(question, expected, marker):
    chosen = answer(question, ALL)
    assert 1 <= len(chosen) <= 3
    assert expected in "".join(s.text for s in chosen if s.marker == marker)
    originals = " ".join(p.text for p in ALL)
    assert all(s.text in originals for s in chosen), "sentences are verbatim"


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "Who won the world cup in 1998?",
        "富士山の標高は何メートルですか。",
        "徳川家康はいつ生まれましたか？",
        "???",
        "",
    ],
)
def test_what_the_passages_do_not_answer_is_not_answered(question):
    assert answer(question, ALL) == []


def test_no_passages_no_answer():
    assert answer("Why?", ()) == []
    assert answer("Why?", (Passage(1, "  \n"),)) == []


def test_a_sentence_that_points_back_brings_the_one_before():
    text = "The retriever keeps every acknowledged document. It does so by a write-ahead log."
    chosen = answer("Which log does the retriever write?", (Passage(1, text),))
    assert [s.text for s in chosen] == text.replace(". It", ".|It").split("|")


def test_headings_and_other_languages_do_not_answer():
    passages = (
        Passage(1, "ragmesh は質問に答えるシステムです。", language="ja"),
        Passage(2, "What ragmesh is\n\nragmesh answers questions from documents.", language="en"),
    )
    assert [(s.text, s.marker) for s in answer("What is ragmesh?", passages)] == [
        ("ragmesh answers questions from documents.", 2)
    ]


def test_markers_of_the_text_itself_do_not_read_as_citations():
    (sentence,) = answer("Where is the temple?", (Passage(4, "The temple stands in Nara.[1][2]"),))
    assert "[1]" not in sentence.text
    assert sentence.marker == 4


def test_lines_are_unwrapped_and_endless_ones_cut():
    wrapped = "保管場所を変えるには、\n環境変数 RAGMESH_DATA に\nフォルダーを指定します。"
    assert next(iter(sentences_of(wrapped))).startswith("保管場所を変えるには、環境変数")
    pieces = list(sentences_of("word, " * 5_000))
    assert max(map(len, pieces)) <= MAX_SENTENCE
    assert list(sentences_of("- one two.\n- three four.")) == ["one two.", "three four."]


def test_a_megabyte_is_read():
    # A quadratic scan would run into the suite's time-out.
    text = "あいうえお漢字の文章です。" * 80_000
    assert answer("漢字の文章は何ですか", (Passage(1, text),))


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When was it built?", Kind.TIME),
        ("How many services are there?", Kind.NUMBER),
        ("何人が住んでいますか", Kind.NUMBER),
        ("誰が建てたか", Kind.PERSON),
        ("Where is it?", Kind.PLACE),
        ("なぜですか", Kind.REASON),
        ("How do I start it?", Kind.METHOD),
        ("梅雨とは何ですか", Kind.DEFINITION),
        ("List the engines", Kind.OTHER),
    ],
)
def test_kinds(question, kind):
    assert kind_of(question) is kind


def test_a_figure_of_the_question_is_no_answer():
    assert not holds(Kind.NUMBER, "In 2021 it grew.", "How much did it grow in 2021?")
    assert holds(Kind.NUMBER, "In 2021 it grew by 5.", "How much did it grow in 2021?")


@pytest.mark.parametrize(
    ("name", "least_answered", "least_refused"),
    [("jsquad_valid_ja", 0.86, 0.97), ("jaquad_ja", 0.68, 0.97)],
)
def test_quality_on_real_questions(shared_data, name, least_answered, least_refused):
    """The gold paragraph among four of the same corpus; and five that are beside the point."""
    folder = shared_data / "retrieval" / name
    corpus = {d["_id"]: d for d in _lines(folder / "corpus.jsonl")}
    texts = {d["_id"]: d["text"] for d in _lines(folder / "queries.jsonl")}
    gold = dict(line.split("\t")[:2] for line in _text(folder / "qrels.tsv").splitlines()[1:])
    expected = [d for d in _lines(folder / "answers.jsonl") if d["_id"] in gold]
    rng = random.Random(5)
    sample = rng.sample(expected, 150)
    ids = sorted(corpus)
    answered = refused = 0
    for item in sample:
        right = corpus[gold[item["_id"]]]
        others = [corpus[i] for i in rng.sample(ids, 12)]
        others = [d for d in others if d["title"] != right["title"]][:5]
        around = [right, *others[:4]]
        rng.shuffle(around)
        said = "".join(s.text for s in answer(texts[item["_id"]], _passages(around)))
        answered += any(_bare(a) in _bare(said) for a in item["answers"])
        refused += not answer(texts[item["_id"]], _passages(others))
    assert answered / len(sample) >= least_answered
    assert refused / len(sample) >= least_refused


def _passages(documents):
    return [
        Passage(i, d["text"], title=d["title"], language="ja") for i, d in enumerate(documents, 1)
    ]


def _lines(path):
    return [json.loads(line) for line in _text(path).splitlines()]


def _text(path):
    return path.read_text(encoding="utf-8")


def _bare(text):
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text))
