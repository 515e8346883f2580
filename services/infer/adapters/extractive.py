"""The default engine: no model. It chooses sentences from what it is given."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from pydantic_settings import SettingsConfigDict

from services.infer.extraction.answers import AnswerSentence, answer
from services.infer.extraction.phrases import NO_ANSWER, NO_ANSWER_IN_TEXT, NO_TEXT, phrase
from services.infer.extraction.summaries import summarize
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    Passage,
    Role,
    Task,
    Usage,
)
from services.infer.settings import EngineSettings
from services.infer.tokens import estimate_tokens
from services.text.language import detect_language
from services.text.sentences import split_sentences
from services.text.terms import content_terms

MODEL = "sentences"
_THREAD_ABOVE = 8_000
"""Characters of input above which the work leaves the event loop: about 5 ms of it."""
_WIDE_END = ("。", "！", "？", "」", "』", "）")
_QUESTION_END = re.compile(r"[?？][\s」』\"')]*$|(?:か|かな|でしょう|ください|下さい)[。．]?$")
_QUESTION_START = re.compile(
    r"^(?:please\s+)?(?:who|what|when|where|which|why|how|is|are|does|do|did|can|tell|explain|"
    r"list|name|describe)\b",
    re.IGNORECASE,
)
_SUMMARY_WISH = re.compile(
    r"\bsummar(?:y|ise|ize|ies)|\btl;?dr\b|\bin short\b|要約|まとめて|要点", re.IGNORECASE
)
_POINTING = re.compile(
    r"^(?:it|this|that|they|he|she|its|their|and|also)\b|\b(?:it|they|this|that|its|their|he|she)\b"
    r"|^(?:それ|これ|その|この|あれ|では|じゃあ|また)|それ(?:は|を|が|の|に)|これ(?:は|を|が|の|に)",
    re.IGNORECASE,
)
_MIN_TEXT = 24
"""Characters from which the rest of a message is a text to work on."""

T = TypeVar("T")


class ExtractiveSettings(EngineSettings):
    """The engine without a model."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_EXTRACTIVE_")


class ExtractiveEngine:
    """Answers from passages, summarises, and says plainly when it has nothing to go on."""

    Settings = ExtractiveSettings

    @classmethod
    def from_settings(cls, settings: ExtractiveSettings) -> "ExtractiveEngine":
        return cls()

    def capabilities(self, model: str = "") -> Capabilities:
        # It samples nothing: whatever bends the choice of tokens changes nothing either.
        return Capabilities(
            seed=True,
            top_k=True,
            penalties=True,
            logit_bias=True,
            completions=True,
            reads_tasks=True,
        )

    async def models(self) -> Sequence[ModelInfo]:
        return (ModelInfo(MODEL, owned_by="ragmesh"),)

    async def ready(self) -> None:
        """Nothing to wait for."""

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        prompt = [request.text, *(m.text for m in request.messages)]
        prompt.extend(passage.text for passage in request.passages)
        work = _compose if request.task is not Task.REWRITE else _rewrite
        pieces, unanswered = await _off_loop(sum(map(len, prompt)), lambda: work(request))
        text = "".join(pieces)
        kept, reason = _limited(text, request)
        if kept != text:
            pieces = _cut(pieces, len(kept))
        if not request.stream:
            pieces = [kept]
        for piece in pieces:
            yield Delta(piece)
            await asyncio.sleep(0)  # let a cancel through between sentences
        yield Finish(reason, unanswered=unanswered)
        yield Usage(
            sum(estimate_tokens(part) for part in prompt), estimate_tokens(kept), estimated=True
        )


async def _off_loop(size: int, work: Callable[[], T]) -> T:
    return work() if size <= _THREAD_ABOVE else await asyncio.to_thread(work)


def _compose(request: GenerateRequest) -> tuple[list[str], bool]:
    """The answer's pieces, never none, and whether the question stayed unanswered."""
    if request.task is Task.SUMMARIZE:
        return _joined(summarize(request.text, request.summary_length) or [request.text]), False
    if request.task is Task.ANSWER or request.passages:
        return _answer(request)
    return _converse(request)


def _answer(request: GenerateRequest) -> tuple[list[str], bool]:
    question = request.question or request.text
    chosen = answer(question, request.passages)
    if not chosen:
        return [phrase(NO_ANSWER, _language(request, question))], True
    return _marked(chosen), False


def _converse(request: GenerateRequest) -> tuple[list[str], bool]:
    """A chat or completion without passages: works on the text that the messages hold."""
    said = request.text if request.task is Task.COMPLETE else request.question
    question, text = split_message(said)
    if not text:
        earlier = [m.text for m in request.messages[:-1] if m.role is not Role.ASSISTANT and m.text]
        text = "\n\n".join(part for part in earlier if len(part) >= _MIN_TEXT)
    language = _language(request, question or text)
    if not text:
        return [phrase(NO_TEXT, language)], True
    if not question or _SUMMARY_WISH.search(question):
        return _joined(summarize(text, request.summary_length) or [text]), False
    chosen = answer(question, (Passage(0, text, language=detect_language(text)),))
    if not chosen:
        return [phrase(NO_ANSWER_IN_TEXT, language)], True
    return _marked(chosen), False


def split_message(said: str) -> tuple[str, str]:
    """A message as (question, text): either may be empty. The question is what asks: the last
    sentence or the first one."""
    spans = split_sentences(said)
    if not spans:
        return "", ""
    for span in (spans[-1], spans[0]):
        sentence = said[span.start : span.end]
        if _asks(sentence):
            rest = (said[: span.start] + said[span.end :]).strip()
            return (sentence, rest) if len(rest) >= _MIN_TEXT else (said.strip(), "")
    if len(spans) == 1 or len(said) < _MIN_TEXT * 2:
        return said.strip(), ""
    return "", said.strip()


def _asks(sentence: str) -> bool:
    return bool(
        _QUESTION_END.search(sentence)
        or _QUESTION_START.match(sentence)
        or (len(sentence) < 80 and _SUMMARY_WISH.search(sentence))
    )


def _rewrite(request: GenerateRequest) -> tuple[list[str], bool]:
    """The last question, with the topic of the one before when it points back."""
    asked = [m.text.strip() for m in request.messages if m.role is Role.USER and m.text.strip()]
    question = asked[-1]
    if len(asked) < 2 or not (_POINTING.search(question) or len(content_terms(question)) < 3):
        return [question], False
    topic = asked[-2].rstrip("?？。. ")
    if detect_language(question) == "ja":
        return [f"{topic}について、{question}"], False
    return [f"{topic}: {question}"], False


def _marked(chosen: Sequence[AnswerSentence]) -> list[str]:
    return _joined([f"{s.text} [{s.marker}]" if s.marker else s.text for s in chosen], marked=True)


def _joined(sentences: Sequence[str], *, marked: bool = False) -> list[str]:
    """Sentences as pieces of one text: Japanese ones stand side by side, markers close by."""
    pieces: list[str] = []
    for i, sentence in enumerate(sentences):
        text = sentence
        if marked and text.endswith("]"):
            body, _, marker = text.rpartition(" ")
            text = f"{body}{marker}" if body.endswith(_WIDE_END) else text
        wide = text.rstrip("0123456789[]").endswith(_WIDE_END)
        last = i == len(sentences) - 1
        pieces.append(text if last or wide else f"{text} ")
    return pieces


def _language(request: GenerateRequest, text: str) -> str:
    return request.language[:2].lower() or detect_language(text)


def _limited(text: str, request: GenerateRequest) -> tuple[str, FinishReason]:
    """`text` up to the first stop text or the token limit."""
    ends = [at for stop in request.sampling.stop if (at := text.find(stop)) >= 0]
    if ends:
        text = text[: min(ends)]
    limit = request.sampling.max_tokens
    if limit is None or estimate_tokens(text) <= limit:
        return text, FinishReason.STOP
    low, high = 0, len(text)
    while low < high:  # the longest start within the limit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if estimate_tokens(text[:middle]) <= limit else (low, middle - 1)
    return text[:low], FinishReason.LENGTH


def _cut(pieces: Sequence[str], length: int) -> list[str]:
    kept: list[str] = []
    for piece in pieces:
        if length <= 0:
            break
        kept.append(piece[:length])
        length -= len(piece)
    return kept
