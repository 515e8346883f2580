"""What an engine is, and the plain data that passes through it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Protocol, TypeAlias


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
    """What an engine can do. What is False here is refused before the engine sees it."""

    streaming: bool = True
    tools: bool = False
    json_object: bool = False
    json_schema: bool = False
    logprobs: bool = False
    multiple_choices: bool = False
    vision: bool = False
    seed: bool = False
    reads_tasks: bool = False
    """The engine works on task, text and passages itself; for others a prompt is rendered."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model by the engine's own name; `context_length` in tokens, 0: unknown or unlimited."""

    name: str
    context_length: int = 0
    owned_by: str = ""


class Engine(Protocol):
    """Something that generates text. One instance serves many calls at a time."""

    def capabilities(self) -> Capabilities:
        """What it can do; constant over its life."""
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

        Closing the generator, or cancelling the task that waits on it, ends the engine's work at
        once. Nothing is retried.

        Raises:
            RagmeshError: as InferService.Generate lists; after a first delta as well.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and processes; safe to call twice."""
        ...
