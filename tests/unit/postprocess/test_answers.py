import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.postprocess.core import process
from services.postprocess.ports import Draft, Format, Passage
from services.runtime.errors import InvalidArgument

PORTS = Passage(
    1,
    "The gateway answers on port 8000. It is a FastAPI application.",
    "ops",
    "ops-0",
    "ops.pdf",
    "Operations",
    4,
    "REST > Ports",
)
INFER = Passage(
    2,
    "推論サービスはポート５００５３で待ち受けます。\n既定のエンジンは抽出型です。",
    "ja",
    title="推論",
)
BOTH = (PORTS, INFER)
LIMIT = 10_000


def finish(text, **fields):
    return process(Draft(text, fields.pop("passages", BOTH), **fields), LIMIT)


def test_a_citation_says_where_its_words_stand():
    answer = finish("The gateway uses port 8000. [1]", query="Which port does the gateway use?")
    (citation,) = answer.citations
    assert citation.passage == PORTS
    assert citation.quote == "The gateway answers on port 8000."
    assert citation.quote in PORTS.text
    assert 0.5 < citation.score <= 1
    assert 0.6 < answer.confidence <= 1


def test_quotes_are_verbatim_originals():
    answer = finish("推論サービスのポートは50053です。[2]")
    assert answer.citations[0].quote == "推論サービスはポート５００５３で待ち受けます。"


def test_citations_come_in_the_order_of_first_mention_once_each():
    answer = finish("抽出型です。[2] Port 8000 [1]. 既定です。[2]")
    assert [c.passage.marker for c in answer.citations] == [2, 1]


def test_confidence_follows_support():
    query = "Which port does the gateway answer on?"
    verbatim = finish("The gateway answers on port 8000. [1]", query=query).confidence
    wrong = finish("The gateway answers on port 9999. [1]", query=query).confidence
    elsewhere = finish("The gateway answers on port 8000. [2]", query=query).confidence
    mixed = finish(
        "The gateway answers on port 8000. [1] It was written by penguins.", query=query
    ).confidence
    uncited = finish("The gateway answers on port 8000.", query=query).confidence
    assert verbatim == pytest.approx(1.0)
    assert verbatim > wrong > elsewhere
    assert mixed == pytest.approx(verbatim / 2)
    assert uncited <= 0.1


def test_an_answer_to_another_question_is_worth_less():
    text = "The gateway answers on port 8000. [1]"
    right = finish(text, query="Which port does the gateway answer on?").confidence
    wrong = finish(text, query="Who painted the Mona Lisa?").confidence
    assert wrong == pytest.approx(right / 2)


def test_a_bare_yes_claims_what_was_asked():
    assert finish("Yes. [1]", query="Is the gateway a FastAPI application?").confidence == 1.0
    assert finish("はい。[2]", query="既定のエンジンは抽出型ですか").confidence > 0.9


def test_headings_and_lead_ins_claim_nothing():
    text = "## Ports\n\nThe ports are:\n- The gateway answers on port 8000 [1]"
    assert finish(text).confidence == pytest.approx(1.0)


def test_an_unanswered_question_cites_nothing_and_is_not_trusted():
    query = "Which port does the gateway answer on?"
    near = finish("I do not know. [1]", query=query, unanswered=True)
    far = finish("I do not know.", query="Who painted the Mona Lisa?", unanswered=True)
    assert near.citations == ()
    assert near.text == "I do not know."
    assert 0 == far.confidence < near.confidence <= 0.1


def test_semantic_support_adds_evidence():
    text = "The entrance listens at eight thousand. [1]"
    lexical = finish(text)
    helped = finish(text, semantic=((0.9, 0.0),))
    hindered = finish(text, semantic=((0.0, 1.0),))
    support = lexical.sentences[0].support
    assert helped.sentences[0].support == pytest.approx((support + 0.9) / 2)
    assert hindered.confidence == lexical.confidence


@pytest.mark.parametrize("row", [(0.5,), (0.5, 0.5, 0.5)])
def test_malformed_support_is_refused(row):
    with pytest.raises(InvalidArgument) as caught:
        finish("x [1]", semantic=(row,))
    assert caught.value.field == "semantic_support"


def test_a_too_long_answer_is_refused():
    with pytest.raises(InvalidArgument) as caught:
        finish("x" * (LIMIT + 1))
    assert (caught.value.reason, caught.value.field) == ("ANSWER_TOO_LONG", "text")


def test_nothing_is_something():
    answer = finish("", passages=())
    assert (answer.text, answer.citations, answer.confidence, answer.sentences) == ("", (), 0, ())


def test_code_is_not_judged():
    text = "Start it so [1]:\n\n```sh\nmake run\n```\n\nThe gateway answers on port 8000. [1]"
    assert all("make" not in s.text for s in finish(text).sentences)
    assert "```sh\nmake run\n```" in finish(text).text


@pytest.mark.parametrize(
    ("markdown", "plain"),
    [
        ("# Ports\n\n**Bold** and *thin* [1].", "Ports\n\nBold and thin [1]."),
        ("* one\n* two", "- one\n- two"),
        ("> quoted", "quoted"),
        ("`a_b` and snake_case_name", "a_b and snake_case_name"),
        ("[the docs](https://x/y)", "the docs (https://x/y)"),
        ("```py\n# not a *heading*\n```", "# not a *heading*"),
        ("2 * 3 * 4 = 24", "2 * 3 * 4 = 24"),
        ("a\n\n---\n\nb", "a\n\nb"),
        ("ﾃﾞｰﾀ **太字**です。", "ﾃﾞｰﾀ 太字です。"),
    ],
)
def test_plain_has_no_marks(markdown, plain):
    assert finish(markdown, format=Format.PLAIN).text == plain


@given(
    st.text(max_size=200),
    st.lists(st.text(max_size=100), max_size=3),
    st.text(max_size=50),
    st.sampled_from(Format),
    st.booleans(),
)
def test_figures_stay_within_bounds_and_quotes_verbatim(text, texts, query, wanted, unanswered):
    passages = tuple(Passage(i, body) for i, body in enumerate(texts, 1))
    marked = text + "".join(f" [{p.marker}]" for p in passages)
    answer = process(Draft(marked, passages, query, wanted, unanswered), LIMIT)
    assert 0 <= answer.confidence <= 1
    assert not unanswered or answer.citations == ()
    for citation in answer.citations:
        assert 0 <= citation.score <= 1
        assert citation.quote in citation.passage.text
    assert all(0 <= s.support <= 1 for s in answer.sentences)
