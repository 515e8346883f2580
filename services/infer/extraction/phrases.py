"""What the extractive engine says in its own words."""

from collections.abc import Mapping

NO_ANSWER: Mapping[str, str] = {
    "en": "The documents found do not answer this question.",
    "ja": "見つかった文書には、この質問への答えがありません。",
}
NO_ANSWER_IN_TEXT: Mapping[str, str] = {
    "en": "The given text does not answer this question.",
    "ja": "与えられた文章には、この質問への答えがありません。",
}
NO_TEXT: Mapping[str, str] = {
    "en": (
        "I have no text to answer from. I choose sentences from texts and do not write freely: "
        "ask about a collection of documents (/v1/query, or a chat with `retrieval`), put the "
        "text into the message together with the question, or choose a language model "
        "(MODEL_BACKEND)."
    ),
    "ja": (
        "答えの元になる文章がありません。私は文章から文を選び出すもので、自由な文章は書きません。"
        "文書のコレクションについて質問する（/v1/query、または `retrieval` 付きのチャット）か、"
        "質問と一緒に文章をメッセージに入れるか、言語モデルを選んでください（MODEL_BACKEND）。"
    ),
}


def phrase(phrases: Mapping[str, str], language: str) -> str:
    """The phrase in `language`, or in English."""
    return phrases.get(language, phrases["en"])
