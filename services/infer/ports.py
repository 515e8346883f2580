"""What an engine is, and the plain data that passes through it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable


class Task(Enum):
    """What the text is for."""

    CHAT = "chat"
    ANSWER = "answer"
    SUMMARIZE = "summarize"
    REWRITE = "rewrite"
    COMPLETE = "complete"


class Role(StrEnum):
    """Who speaks in a chat; the values are those of OpenAI's protocol."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    DEVELOPER = "developer"


@dataclass(frozen=True, slots=True)
class ContentPart:
    """Text, or an image by URL: exactly one is not None."""

    text: str | None = None
    image_url: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A finished call; `arguments` is JSON text that may not be valid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Role
    parts: tuple[ContentPart, ...] = ()
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    @property
    def text(self) -> str:
        """The text parts, joined by line breaks."""
        return "\n".join(part.text for part in self.parts if part.text)


def text_message(role: Role, text: str) -> Message:
    return Message(role, (ContentPart(text=text),))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters_json` is a JSON schema or empty."""

    name: str
    description: str = ""
    parameters_json: str = ""
    strict: bool = False


class ToolChoiceMode(StrEnum):
    """Ways to choose a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether and which tool is called."""

    mode: ToolChoiceMode
    function: str = ""


class FormatType(StrEnum):
    """Forms of an answer; the values are those of OpenAI's protocol."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form of the answer; `json_schema` is JSON text, for JSON_SCHEMA only."""

    type: FormatType = FormatType.TEXT
    json_schema: str = ""
    name: str = "answer"
    strict: bool = False


class GuideKind(StrEnum):
    """Ways to constrain an answer beside JSON."""

    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class Guide:
    """What the whole answer must match: one regular expression, one grammar (EBNF in the
    engine's own notation), or exactly one of several texts."""

    kind: GuideKind
    values: tuple[str, ...]

    @property
    def value(self) -> str:
        """The expression or the grammar."""
        return self.values[0]


class SummaryLength(Enum):
    """Rough lengths of a summary."""

    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; None is the engine's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that an answer may rest on and cite as ``[marker]``."""

    marker: int
    text: str
    title: str = ""
    heading: str = ""
    source: str = ""
    page: int | None = None
    language: str = "und"
    score: float = 0.0
    document_id: str = ""
    chunk_id: str = ""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What to generate. `model` is an alias or ``provider/model`` until routing replaces it by
    the engine's own name; `timeout` is what is left of the caller's budget, in seconds."""

    model: str = ""
    task: Task = Task.CHAT
    messages: tuple[Message, ...] = ()
    passages: tuple[Passage, ...] = ()
    text: str = ""
    language: str = ""
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat = ResponseFormat()
    n: int = 1
    stream: bool = False
    top_logprobs: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    summary_length: SummaryLength = SummaryLength.MEDIUM
    parallel_tool_calls: bool | None = None
    timeout: float | None = None
    guide: Guide | None = None
    continue_final: bool = False
    """Go on with the last message, an assistant's, instead of beginning a new one."""
    tenant: str = ""
    """Whose share of the engine it takes."""

    @property
    def question(self) -> str:
        """The text of the last user message, or an empty string."""
        for message in reversed(self.messages):
            if message.role is Role.USER:
                return message.text
        return ""


@dataclass(frozen=True, slots=True)
class Started:
    """The request was admitted; `model` is ``provider/model``."""

    model: str
    alias: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; id and name come in the first piece only."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A likely token."""

    token: str
    logprob: float
    token_bytes: bytes = b""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its natural log-probability and the likely ones in its place."""

    token: str
    logprob: float
    token_bytes: bytes = b""
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of choice `index`, in whole characters."""

    text: str = ""
    index: int = 0
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class FinishReason(StrEnum):
    """Why a choice has ended; the values are those of OpenAI's protocol."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Finish:
    """A choice has ended; `unanswered`: the engine found that the passages do not answer."""

    reason: FinishReason = FinishReason.STOP
    index: int = 0
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; `estimated` when neither engine nor tokenizer gave exact counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
        )


EngineEvent: TypeAlias = Delta | Finish | Usage
Event: TypeAlias = Started | EngineEvent


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do with a model. What is not claimed here is refused, with the field
    named, before the engine sees it; so an adapter claims what it sends, and nothing else."""

    streaming: bool = True
    tools: bool = False
    tool_choice: bool = False
    """A call can be required, or its function named."""
    parallel_tool_calls: bool = False
    """Whether several calls may come at once can be chosen."""
    json_object: bool = False
    json_schema: bool = False
    guides: frozenset[GuideKind] = frozenset()
    logprobs: bool = False
    max_top_logprobs: int = 20
    multiple_choices: bool = False
    vision: bool = False
    seed: bool = False
    top_k: bool = False
    penalties: bool = False
    """Presence and frequency penalties."""
    logit_bias: bool = False
    max_stops: int = 16
    """How many stop texts it takes; 0: none."""
    completions: bool = False
    """A text is continued without a chat template."""
    prefill: bool = False
    """`continue_final` is honoured."""
    counts_tokens: bool = False
    """It is a `TokenCounter`."""
    pull: bool = False
    """It is a `ModelManager` that downloads."""
    load: bool = False
    """It is a `ModelManager` that loads and unloads."""
    lists_all: bool = True
    """`models` names every model that it has, so that others are not found; False where a server
    knows more than it lists, and refuses by itself."""
    reads_tasks: bool = False
    """The engine works on task, text and passages itself; for others a prompt is rendered."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model by the engine's own name; `context_length` in tokens, 0: unknown or unlimited."""

    name: str
    context_length: int = 0
    owned_by: str = ""


class Engine(Protocol):
    """Something that generates text. One instance serves many calls at a time.

    It is made inside the event loop, and making it neither waits nor loads: `ready` does.
    """

    def capabilities(self, model: str = "") -> Capabilities:
        """What it can do with a model of its own name, or with any of them; asked at every
        request, so it answers from memory."""
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """Its models, the default one first; empty when they cannot be asked for now."""
        ...

    async def ready(self) -> None:
        """Return when it can work.

        Raises:
            RagmeshError: ENGINE_UNAVAILABLE or ENGINE_AUTHENTICATION_FAILED, when it cannot now.
        """
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """Generate: any number of deltas, one `Finish` a choice, one `Usage` last.

        Deltas hold whole characters, however the engine cuts its tokens. `request.model` is the
        engine's own name. Closing the generator, or cancelling the task that waits on it, ends
        the engine's work at once; the caller does so when `request.timeout` has passed. Nothing
        is retried.

        Raises:
            RagmeshError: as InferService.Generate lists; after a first delta as well.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and processes; safe to call twice."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """An engine that counts exactly."""

    async def count_tokens(self, request: GenerateRequest) -> int:
        """Tokens that the engine would read for a chat as it stands, template included; for
        `Task.COMPLETE` those of `request.text`.

        Raises:
            RagmeshError: it cannot now; the caller then estimates.
        """
        ...


@runtime_checkable
class TextCounter(TokenCounter, Protocol):
    """An engine that counts what was said too, because it does not always tell."""

    async def count_text(self, model: str, text: str) -> int:
        """Tokens of a bare text, without any that begin or end it. Raises as `count_tokens`."""
        ...


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine says it is; None where it does not say."""

    running: int | None = None
    """Generations, of all its clients."""
    waiting: int | None = None
    cache_used: float | None = None
    """Share of its cache for attention, from 0 to 1."""


@runtime_checkable
class LoadReporter(Protocol):
    """An engine that tells how busy it is."""

    async def load_now(self) -> EngineLoad:
        """Raises:
        RagmeshError: it does not tell now.
        """
        ...


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a download is; `total` 0: not known yet."""

    status: str
    completed: int = 0
    total: int = 0


@runtime_checkable
class ModelManager(Protocol):
    """An engine whose models can be fetched, loaded and unloaded while it runs."""

    @property
    def exclusive(self) -> bool:
        """Whether one model at a time is to be loaded: generations of another one then wait
        until the running ones end, and the loaded one is unloaded first."""
        ...

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model; closing the generator ends the download where the engine can.

        Raises:
            NotFound: MODEL_NOT_FOUND.
            Unimplemented: DOWNLOAD_UNSUPPORTED.
            Unavailable: ENGINE_UNAVAILABLE.
        """
        ...

    async def load(self, model: str) -> None:
        """Return when the model can answer at once. Raises as `generate` does."""
        ...

    async def unload(self, model: str) -> None:
        """Free the memory of a model; nothing happens when it is not loaded."""
        ...
