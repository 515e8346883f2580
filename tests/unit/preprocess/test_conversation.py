"""PlanQuery's rules on conversations as people have them, in both languages."""

import pytest

from services.preprocess.conversation import Plan, Turn, plan
from services.runtime.errors import InvalidArgument

LIMIT = 8_000


def planned(query: str, *turns: str) -> Plan:
    """Plan after turns that begin with the user's and alternate with the assistant's."""
    history = [Turn(by_user=index % 2 == 0, text=text) for index, text in enumerate(turns)]
    return plan(query, history, LIMIT)


@pytest.mark.parametrize(
    ("query", "language"),
    [
        ("How does it scale?", "en"),
        ("それは変更できますか?", "ja"),
        ("1234", "und"),
    ],
)
def test_without_history_every_query_stands_alone(query: str, language: str) -> None:
    answer = planned(query)
    assert answer.rewrite_turns is None
    assert answer.query.text == query
    assert answer.query.language == language
    assert not answer.query.rewritten


def test_search_gets_the_normalised_form_and_people_the_original() -> None:
    answer = planned("  ｶﾞｲﾄﾞ の　ＵＲＬ は？ ")
    assert answer.query.text == "ｶﾞｲﾄﾞ の　ＵＲＬ は？"
    assert answer.query.normalized == "ガイド の URL は?"


@pytest.mark.parametrize(
    ("turns", "query"),
    [
        (["What is Kong?"], "How many tokens does the encoder accept?"),
        (["What is Kong?"], "Is it possible to run the mesh without Docker?"),
        (["What is Kong?"], "What is vLLM and how does it work?"),
        (["What is Kong?"], "How long does it take to index 1,000 documents?"),
        (["What is Kong?"], "Show the sentence that mentions TLS"),
        (["What is Kong?"], "And how do I install Qdrant?"),
        (["vLLMとは何ですか?"], "オレゴン州会議事堂とは、どの都市にあるものか?"),
        (["vLLMとは何ですか?"], "それでは、Kongの料金はいくらですか?"),
        (["vLLMとは何ですか?"], "長登銅山とその周辺の鉱山はいつ閉山しましたか?"),
        (["vLLMとは何ですか?"], "この文書で指定されたと書かれている庁舎はどこですか?"),
        (["vLLMとは何ですか?"], "1989年、それまでの記録を破ったのは誰ですか?"),
    ],
)
def test_a_complete_question_stands_alone(turns: list[str], query: str) -> None:
    answer = planned(query, *turns)
    assert (answer.rewrite_turns, answer.query.text) == (None, query)
    assert not answer.query.rewritten


@pytest.mark.parametrize(
    ("turns", "query", "expected"),
    [
        (
            ["What is the gateway?", "It is ..."],
            "How does it scale?",
            "How does the gateway scale?",
        ),
        (["What is Kong?"], "Does that work on ARM?", "Does Kong work on ARM?"),
        (
            ["How do I install Qdrant on Debian?"],
            "What about its licence?",
            "What about Qdrant's licence?",
        ),
        (
            ["What is Kong?", "A gateway.", "How does it scale?", "By replicas."],
            "And its price?",
            "And Kong's price?",
        ),
        (
            ["ゲートウェイのポートは何番ですか?"],
            "それは変更できますか?",
            "ゲートウェイのポートは変更できますか?",
        ),
        (["vLLMとは何ですか?"], "その上限は?", "vLLMの上限は?"),
        (
            ["vLLMとは何ですか?", "推論エンジンです。", "その上限は?", "…"],
            "それはどこで設定しますか?",
            "vLLMはどこで設定しますか?",
        ),
    ],
)
def test_a_pronoun_is_replaced_by_the_topic(turns: list[str], query: str, expected: str) -> None:
    answer = planned(query, *turns)
    assert answer.rewrite_turns is None
    assert answer.query.rewritten
    assert answer.query.text == expected


@pytest.mark.parametrize(
    ("turn", "query"),
    [
        ("What port does the gateway use?", "And the retrieve service?"),
        ("What port does the gateway use?", "what about retrieve?"),
        ("What is Kong?", "And in Japanese?"),
        ("What is Kong?", "In Japanese?"),
        ("What is Kong?", "Tell me more"),
        ("What is Kong?", "Can you give an example?"),
        ("ゲートウェイのポートは何番ですか?", "では、retrieveは?"),
        ("ゲートウェイのポートは何番ですか?", "もっと詳しく"),
        ("ゲートウェイのポートは何番ですか?", "もっと詳しく教えてください。"),
        ("有給休暇は何日ありますか?", "パートの場合は?"),
        ("vLLMとは何ですか?", "日本語では?"),
    ],
)
def test_a_fragment_is_set_beside_its_question(turn: str, query: str) -> None:
    answer = planned(query, turn)
    assert answer.rewrite_turns is None
    assert answer.query.rewritten
    assert answer.query.text == f"{turn} {query}"


@pytest.mark.parametrize(
    ("turn", "query"),
    [
        ("What port does the gateway use?", "Why?"),
        ("What port does the gateway use?", "Can I change it?"),
        ("Which models are supported?", "Which of them support tools?"),
        ("Who wrote the report?", "When was he born?"),
        ("ゲートウェイのポートは何番ですか?", "なぜですか?"),
        ("vLLMとは何ですか?", "それらの違いは何ですか?"),
        ("経費の申請期限はいつですか?", "過ぎたらどうなりますか?"),
    ],
)
def test_what_rules_cannot_tell_is_for_a_model(turn: str, query: str) -> None:
    answer = planned(query, turn, "An answer.")
    assert answer.asked == query
    assert answer.rewrite_turns == (0, 1)
    assert answer.query.rewritten
    assert answer.query.text == f"{turn} {query}", "the fallback holds both questions"


def test_a_rewrite_sees_the_recent_turns_only() -> None:
    turns = [f"Turn number {index}, please?" for index in range(40)]
    answer = planned("Why?", *turns)
    assert answer.rewrite_turns is not None
    assert answer.rewrite_turns[-1] == 39
    assert len(answer.rewrite_turns) <= 8


def test_a_fragment_moves_the_topic_on() -> None:
    turns = ["What is Kong?", "A gateway.", "And Qdrant?", "A vector store."]
    answer = planned("How does it scale?", *turns)
    assert answer.rewrite_turns is not None, "it may be either"


@pytest.mark.parametrize("query", ["", "   ", "\u200b", "???", "。"])
def test_an_empty_query_is_refused(query: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plan(query, [], LIMIT)
    assert (caught.value.reason, caught.value.field) == ("QUERY_EMPTY", "query")


def test_a_long_query_is_refused() -> None:
    plan("あ" * 10, [], 10)
    with pytest.raises(InvalidArgument) as caught:
        plan("あ" * 11, [], 10)
    assert (caught.value.reason, caught.value.field) == ("QUERY_TOO_LONG", "query")


def test_hostile_text_is_planned_in_no_time() -> None:
    for text in ("what is " * 900, "それは" * 2_500, "how about " * 700, "a, " * 2_600):
        planned(text[:LIMIT], text[:LIMIT], "x", text[:LIMIT])
