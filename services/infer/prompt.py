"""Prompts for engines that speak in chats: instructions, history, passages, parts of long texts."""

from dataclasses import dataclass, replace

from services.infer import metrics
from services.infer.extraction.summaries import shorten
from services.infer.lengths import too_long
from services.infer.packing import escaped, head, pack, render_passages
from services.infer.ports import (
    FormatType,
    GenerateRequest,
    Message,
    ResponseFormat,
    Role,
    SummaryLength,
    Task,
    text_message,
)
from services.infer.templates import TEMPLATES
from services.infer.tokens import estimate_tokens
from services.text.language import detect_language

ASSUMED_CONTEXT = 16_384
"""Tokens, where the engine does not say."""
ANSWER_RESERVE = 1_024
"""Tokens kept for the answer when the caller gives no limit."""
MAX_PARTS = 16
"""The most parts of a long text; a longer one is shortened by sentence ranking first."""
MESSAGE_TOKENS = 8
"""What a chat template adds to a message, about."""
SAFETY = 1.1
"""How far estimates may fall short."""
DOUBT = 2
"""How far they may go too far: below that many times the room the engine is asked."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a prompt must fit into."""

    context_length: int = 0
    """Tokens; 0: unknown."""
    scale: float = SAFETY
    """Tokens of this model's tokenizer to one estimated token."""

    @property
    def context(self) -> int:
        return self.context_length or ASSUMED_CONTEXT

    def answer(self, request: GenerateRequest) -> int:
        """Tokens kept for the answer."""
        return request.sampling.max_tokens or min(ANSWER_RESERVE, self.context // 4)

    def room(self, request: GenerateRequest) -> int:
        """Tokens for the prompt."""
        return self.context - self.answer(request)

    def size(self, text: str) -> int:
        """Tokens of a text, rather too many than too few."""
        return int(estimate_tokens(text) * self.scale) + 1 if text else 0


def prompt_language(request: GenerateRequest) -> str:
    """``ja`` or ``en``: the language to instruct and answer in."""
    language = request.language[:2].lower() or detect_language(request.question or request.text)
    return language if language in TEMPLATES else "en"


def render(request: GenerateRequest, prompt: Prompt) -> GenerateRequest:
    """Turn an answer or a rewrite into a chat; a chat stays as it is.

    Raises:
        InvalidArgument: CONTEXT_LENGTH_EXCEEDED, when not even the question fits.
    """
    if request.task is Task.ANSWER:
        messages = _answer_messages(request, prompt)
    elif request.task is Task.REWRITE:
        messages = _rewrite_messages(request)
    else:
        return request
    return replace(request, task=Task.CHAT, messages=messages, passages=())


def summary_parts(text: str, request: GenerateRequest, prompt: Prompt) -> list[str]:
    """A text in parts that fit, each ending with a sentence; at most MAX_PARTS."""
    overhead = prompt.size(_summary_system(request, "merge")) + 4 * MESSAGE_TOKENS
    room = max(64, prompt.room(request) - overhead)
    if prompt.size(text) > room * MAX_PARTS:
        # Every token of Japanese may be one character, so this fits whatever the language.
        text = shorten(text, int(room * MAX_PARTS / prompt.scale))
    parts: list[str] = []
    while text:
        part = head(text, room, prompt.size) or text[: max(1, int(room / prompt.scale))]
        parts.append(part)
        text = text[len(part) :].lstrip()
    return parts[:MAX_PARTS]


def summary_request(
    request: GenerateRequest, text: str, *, merge: bool = False, note: int | None = None
) -> GenerateRequest:
    """The chat that summarises `text`.

    Args:
        merge: the text is summaries of parts.
        note: make a note on a part, in one piece and of at most so many tokens.
    """
    system = _summary_system(request, "merge" if merge else "summarize", note is not None)
    messages = (
        text_message(Role.SYSTEM, system),
        text_message(Role.USER, f"<text>\n{escaped(text)}\n</text>"),
    )
    chat = replace(request, task=Task.CHAT, messages=messages, text="")
    if note is None:
        return chat
    return replace(
        chat,
        stream=False,
        n=1,
        sampling=replace(request.sampling, max_tokens=note),
        tools=(),
        tool_choice=None,
        response_format=ResponseFormat(FormatType.TEXT),
        guide=None,
        top_logprobs=None,
    )


def _summary_system(request: GenerateRequest, template: str, note: bool = False) -> str:
    texts = _template(request, template)
    length = SummaryLength.MEDIUM if note else request.summary_length
    return texts["system"].format(length=texts[length.value])


def _answer_messages(request: GenerateRequest, prompt: Prompt) -> tuple[Message, ...]:
    texts = _template(request, "answer")
    history = [m for m in request.messages if m.role not in (Role.SYSTEM, Role.DEVELOPER)]
    instructions = [m.text for m in request.messages if m.role in (Role.SYSTEM, Role.DEVELOPER)]
    system = "\n\n".join([texts["system"], *instructions])
    while history and history[-1].role is not Role.USER:
        history.pop()
    *earlier, question = history
    fixed = prompt.size(system + question.text) + 4 * MESSAGE_TOKENS
    room = prompt.room(request) - fixed
    if fixed > DOUBT * prompt.room(request):
        raise too_long(fixed + prompt.answer(request), prompt.context)
    room = max(0, room)  # close enough for the engine to judge
    kept: list[Message] = []
    half = room // 2
    for message in reversed(earlier):  # the latest turns, in at most half of the room
        cost = prompt.size(message.text) + MESSAGE_TOKENS
        if cost > half:
            break
        kept.insert(0, message)
        half -= cost
        room -= cost
    passages = render_passages(pack(request.passages, room, prompt.size))
    asked = f"{texts['passages']}\n{passages}\n\n{texts['question']} {question.text}"
    images = tuple(part for part in question.parts if part.image_url)
    last = text_message(Role.USER, asked)
    return (
        text_message(Role.SYSTEM, system),
        *kept,
        replace(last, parts=last.parts + images),
    )


def _rewrite_messages(request: GenerateRequest) -> tuple[Message, ...]:
    texts = _template(request, "rewrite")
    roles = {Role.USER: texts["user"], Role.ASSISTANT: texts["assistant"]}
    lines = [f"{roles[m.role]}: {m.text}" for m in request.messages[-12:] if m.role in roles]
    return (
        text_message(Role.SYSTEM, texts["system"]),
        text_message(
            Role.USER, "<conversation>\n" + escaped("\n".join(lines)) + "\n</conversation>"
        ),
    )


def _template(request: GenerateRequest, task: str) -> dict[str, str]:
    language = prompt_language(request)
    texts = dict(TEMPLATES[language][task])
    metrics.PROMPTS.labels(task, language, texts["version"]).inc()
    return texts
