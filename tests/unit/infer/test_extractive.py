import asyncio

import pytest

from services.infer.adapters.extractive import ExtractiveEngine, split_message
from services.infer.extraction.phrases import NO_ANSWER, NO_ANSWER_IN_TEXT, NO_TEXT
from services.infer.extraction.summaries import shorten, summarize
from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    GenerateRequest,
    Passage,
    Role,
    Sampling,
    SummaryLength,
    Task,
    Usage,
    text_message,
)
from services.infer.tokens import estimate_tokens

PASSAGES = (
    Passage(1, "The gateway answers on port 8000. It is written in Python."),
    Passage(2, "推論サービスはポート50053で待ち受けます。検索サービスはポート50052です。"),
)


async def run(task=Task.CHAT, *said, **fields):
    request = GenerateRequest(
        task=task, messages=tuple(text_message(Role.USER, text) for text in said), **fields
    )
    *deltas, finish, usage = [event async for event in ExtractiveEngine().generate(request)]
    assert isinstance(finish, Finish)
    assert isinstance(usage, Usage)
    assert usage.estimated
    text = "".join(delta.text for delta in deltas if isinstance(delta, Delta))
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert text.strip()
    return text, finish, deltas


async def test_markers_follow_their_sentences():
    text, finish, _ = await run(Task.ANSWER, "Which port has the gateway?", passages=PASSAGES)
    assert text == "The gateway answers on port 8000. [1]"
    assert not finish.unanswered
    text, _, _ = await run(Task.ANSWER, "検索サービスのポートは？", passages=PASSAGES)
    assert "検索サービスはポート50052です。[2]" in text


@pytest.mark.parametrize(
    ("question", "language", "expected"),
    [
        ("Who painted the Mona Lisa?", "", NO_ANSWER["en"]),
        ("モナリザを描いたのは誰ですか。", "", NO_ANSWER["ja"]),
        ("モナリザを描いたのは誰ですか。", "en", NO_ANSWER["en"]),
    ],
)
async def test_it_says_plainly_when_the_passages_do_not_answer(question, language, expected):
    text, finish, _ = await run(Task.ANSWER, question, passages=PASSAGES, language=language)
    assert text == expected
    assert finish.unanswered


async def test_it_says_so_without_passages():
    text, finish, _ = await run(Task.ANSWER, "Which port?")
    assert (text, finish.unanswered) == (NO_ANSWER["en"], True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("Hello!",), NO_TEXT["en"]),
        (("こんにちは",), NO_TEXT["ja"]),
        (
            ("The mesh has four services. They speak gRPC. How many services has the mesh?",),
            "The mesh has four services.",
        ),
        (
            ("東大寺は奈良にある。大仏の高さは約15メートルである。大仏の高さは？",),
            "大仏の高さは約15メートルである。",
        ),
        (
            ("The mesh has four services and one gateway.", "How many services has the mesh?"),
            "The mesh has four services and one gateway.",
        ),
        (
            ("The mesh has four services. They speak gRPC. Who painted the Mona Lisa?",),
            NO_ANSWER_IN_TEXT["en"],
        ),
    ],
)
async def test_a_chat_works_on_the_text_it_is_given(said, expected):
    text, _, _ = await run(Task.CHAT, *said)
    assert text == expected


async def test_a_chat_summarises_when_asked():
    body = "Cats sleep for most of the day. Cats also hunt at night. Rivers flow. " * 3
    text, _, _ = await run(Task.CHAT, f"Summarize this: {body}")
    assert "Cats" in text
    assert len(text) < len(body)


async def test_completion_says_what_it_can_do():
    text, _, _ = await run(Task.COMPLETE, text="Once upon a time")
    assert text == NO_TEXT["en"]


async def test_rewriting_brings_the_topic_along():
    text, _, _ = await run(Task.REWRITE, "What is Qdrant Edge?", "How fast is it?")
    assert text == "What is Qdrant Edge: How fast is it?"
    text, _, _ = await run(Task.REWRITE, "東大寺の大仏", "それはいつ作られましたか？")
    assert text == "東大寺の大仏について、それはいつ作られましたか？"
    text, _, _ = await run(Task.REWRITE, "Hi", "Which port does the gateway answer on?")
    assert text == "Which port does the gateway answer on?"


async def test_streaming_goes_sentence_by_sentence():
    whole, _, one = await run(Task.SUMMARIZE, text=ARTICLE)
    streamed, _, many = await run(Task.SUMMARIZE, text=ARTICLE, stream=True)
    assert whole == streamed
    assert len(one) == 1
    assert len(many) > 1


async def test_limits_cut_the_answer():
    asked = {"passages": PASSAGES, "stream": True}
    text, finish, _ = await run(
        Task.ANSWER, "Which port has the gateway?", sampling=Sampling(max_tokens=4), **asked
    )
    assert finish.reason is FinishReason.LENGTH
    assert estimate_tokens(text) <= 4
    text, finish, _ = await run(
        Task.ANSWER, "Which port has the gateway?", sampling=Sampling(stop=(" on",)), **asked
    )
    assert (text, finish.reason) == ("The gateway answers", FinishReason.STOP)


async def test_long_work_leaves_the_event_loop_free():
    text = "".join(
        f"Sentence {i} speaks about subject {i % 89} and others. " for i in range(20_000)
    )
    request = GenerateRequest(task=Task.SUMMARIZE, text=text)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticker = asyncio.ensure_future(tick())
    _ = [event async for event in ExtractiveEngine().generate(request)]
    ticker.cancel()
    assert ticks > 3


def test_split_message():
    assert split_message("") == ("", "")
    assert split_message("Why is that?") == ("Why is that?", "")
    assert split_message("What is a cat? A cat is a small animal that purrs.") == (
        "What is a cat?",
        "A cat is a small animal that purrs.",
    )


ARTICLE = (
    "The mesh has four services behind a gateway. The gateway conducts the services of the mesh. "
    "The services of the mesh never call each other. Bananas are yellow. The gateway sets a budget "
    "for each request to the services. The mesh runs without a GPU. The gateway conducts the "
    "services in the mesh."
)


def test_summaries_keep_the_order_and_repeat_nothing():
    short = summarize(ARTICLE, SummaryLength.SHORT)
    long = summarize(ARTICLE, SummaryLength.LONG)
    assert 1 <= len(short) <= 2 < len(long)
    assert "Bananas are yellow." not in short
    positions = [ARTICLE.index(sentence) for sentence in long]
    assert positions == sorted(positions)
    assert len([s for s in long if "conducts" in s]) == 1


def test_summaries_of_japanese_and_of_almost_nothing():
    text = (
        "東大寺は奈良にある寺院である。東大寺の大仏は有名である。バナナは黄色い。"
        "東大寺の大仏は聖武天皇が建立した。"
    )
    assert "バナナは黄色い。" not in summarize(text, SummaryLength.SHORT)
    assert summarize("ok", SummaryLength.LONG) == ["ok"]
    assert summarize(" ", SummaryLength.SHORT) == []


def test_shortening_keeps_to_its_budget():
    shortened = shorten(ARTICLE, 30)
    assert shortened
    assert estimate_tokens(shortened) <= 30
