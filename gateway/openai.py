"""OpenAI's requests, read into the protos. A field that is not listed here goes to the engine
as it came, in GenerateRequest.extra."""

from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.freeform import to_json_text, to_struct
from gateway.schemas import (
    INPUT_TYPES,
    MAX_INT32,
    ModelName,
    RetrievalOptions,
    Seed,
    SessionId,
    Stop,
    Temperature,
    Tokens,
    TopP,
)
from ragmesh.infer.v1 import infer_pb2
from ragmesh.retrieve.v1 import retrieve_pb2
from ragmesh.type.v1 import chat_pb2
from services.runtime.errors import InvalidArgument

ROLES: "dict[str, chat_pb2.Role]" = {
    "system": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
    "developer": chat_pb2.ROLE_DEVELOPER,
}
TOOL_CHOICES: "dict[str, infer_pb2.ToolChoiceMode]" = {
    "auto": infer_pb2.TOOL_CHOICE_MODE_AUTO,
    "none": infer_pb2.TOOL_CHOICE_MODE_NONE,
    "required": infer_pb2.TOOL_CHOICE_MODE_REQUIRED,
}
FORMATS: "dict[str, infer_pb2.ResponseFormatType]" = {
    "text": infer_pb2.RESPONSE_FORMAT_TYPE_TEXT,
    "json_object": infer_pb2.RESPONSE_FORMAT_TYPE_JSON_OBJECT,
    "json_schema": infer_pb2.RESPONSE_FORMAT_TYPE_JSON_SCHEMA,
}

Penalty = Annotated[float, Field(ge=-2, le=2)]
Choices = Annotated[int, Field(ge=1, le=128)]
TokenId = Annotated[int, Field(ge=0, le=2**32 - 1)]
FunctionName = Annotated[str, Field(min_length=1, max_length=256)]


class OpenAIModel(BaseModel):
    """Something that OpenAI's clients send; what is not listed is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class OpenAIRequest(BaseModel):
    """A body of an OpenAI route; what is not listed is kept for the engine."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class ImageUrl(OpenAIModel):
    """Where an image is."""

    url: Annotated[str, Field(min_length=1)]


class ContentPart(OpenAIModel):
    """A part of a message: `text`, or `image_url`."""

    type: Literal["text", "image_url", "refusal"]
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None


class FunctionCall(OpenAIModel):
    """A function's name and the arguments' JSON text."""

    name: FunctionName
    arguments: str = ""


class ToolCall(OpenAIModel):
    """A call that the assistant asked for."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(OpenAIModel):
    """One message of a chat."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def to_proto(self, where: str) -> chat_pb2.ChatMessage:
        if self.content is None and not self.tool_calls and self.role != "assistant":
            _refuse("FIELD_REQUIRED", f"{where}.content is required.", f"{where}.content")
        if self.role == "tool" and not self.tool_call_id:
            name = f"{where}.tool_call_id"
            _refuse("FIELD_REQUIRED", f"{name} is required.", name)
        return chat_pb2.ChatMessage(
            role=ROLES[self.role],
            content=self._parts(where),
            name=self.name,
            tool_calls=[
                chat_pb2.ToolCall(
                    id=call.id, name=call.function.name, arguments=call.function.arguments
                )
                for call in self.tool_calls or ()
            ],
            tool_call_id=self.tool_call_id,
        )

    def _parts(self, where: str) -> list[chat_pb2.ContentPart]:
        if self.content is None:
            return []
        if isinstance(self.content, str):
            return [chat_pb2.ContentPart(text=self.content)]
        parts = []
        for index, part in enumerate(self.content):
            given = part.image_url if part.type == "image_url" else getattr(part, part.type)
            if given is None:
                name = f"{where}.content[{index}].{part.type}"
                _refuse("FIELD_REQUIRED", f"{name} is required.", name)
            if part.image_url is not None and part.type == "image_url":
                parts.append(chat_pb2.ContentPart(image_url=part.image_url.url))
            else:
                parts.append(chat_pb2.ContentPart(text=str(given)))
        return parts


class FunctionDefinition(OpenAIModel):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(OpenAIModel):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition

    def to_proto(self, where: str) -> chat_pb2.Tool:
        parameters = self.function.parameters
        return chat_pb2.Tool(
            name=self.function.name,
            description=self.function.description,
            parameters_json=to_json_text(parameters, where) if parameters is not None else "",
            strict=bool(self.function.strict),
        )


class NamedFunction(OpenAIModel):
    """A function's name."""

    name: FunctionName


class NamedTool(OpenAIModel):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(OpenAIModel):
    """The schema of a structured answer."""

    name: str = "answer"
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(OpenAIModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def to_proto(self) -> infer_pb2.ResponseFormat:
        schema = self.json_schema
        if self.type != "json_schema":
            return infer_pb2.ResponseFormat(type=FORMATS[self.type])
        if schema is None or schema.schema_ is None:
            name = "response_format.json_schema.schema"
            _refuse("FIELD_REQUIRED", f"{name} is required.", name)
        return infer_pb2.ResponseFormat(
            type=FORMATS[self.type],
            json_schema=to_json_text(schema.schema_, "response_format.json_schema.schema"),
            name=schema.name,
            strict=bool(schema.strict),
        )


class StreamOptions(OpenAIModel):
    """What a stream carries besides."""

    include_usage: bool = False


class SamplingFields(OpenAIRequest):
    """How to sample; unset means the engine's default."""

    model: ModelName = "default"
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    max_tokens: Tokens | None = None
    stop: str | Stop | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        dict[Annotated[int, Field(ge=0, le=MAX_INT32)], Annotated[float, Field(ge=-100, le=100)]]
        | None
    ) = None
    n: Choices | None = None
    stream: Annotated[bool, BeforeValidator(lambda value: value or False)] = False
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int | None) -> infer_pb2.Sampling:
        if self.stream_options is not None and not self.stream:
            _refuse(
                "PARAMETER_INVALID",
                "stream_options goes with stream: true only.",
                "stream_options",
            )
        return infer_pb2.Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=max_tokens,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop,
            seed=self.seed,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
        )


class ChatBody(SamplingFields):
    """A chat to continue. `retrieval` turns it into an answer from a collection."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Tokens | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    retrieval: RetrievalOptions | None = None
    session_id: SessionId | None = None

    def to_proto(self) -> infer_pb2.GenerateRequest:
        if self.top_logprobs is not None and not self.logprobs:
            _refuse("PARAMETER_INVALID", "top_logprobs needs logprobs: true.", "top_logprobs")
        if self.tool_choice is not None and self.tool_choice != "none" and not self.tools:
            _refuse("PARAMETER_INVALID", "tool_choice needs tools.", "tool_choice")
        extra = self.model_extra or {}
        return infer_pb2.GenerateRequest(
            model=self.model,
            task=infer_pb2.TASK_CHAT,
            messages=[
                message.to_proto(f"messages[{index}]")
                for index, message in enumerate(self.messages)
            ],
            sampling=self.sampling(self.max_completion_tokens or self.max_tokens),
            tools=[
                tool.to_proto(f"tools[{index}].function.parameters")
                for index, tool in enumerate(self.tools or ())
            ],
            tool_choice=_tool_choice(self.tool_choice),
            response_format=self.response_format.to_proto() if self.response_format else None,
            n=self.n or 0,
            stream=self.stream,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            extra=to_struct(extra, "body") if extra else None,
            parallel_tool_calls=self.parallel_tool_calls,
        )


class CompletionBody(SamplingFields):
    """A text to continue without a chat template."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str]:
        """The texts to continue."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts = [prompt for prompt in self.prompt if isinstance(prompt, str)]
        if not texts or len(texts) != len(self.prompt):
            _refuse("PARAMETER_UNSUPPORTED", "prompt must be a text or a list of texts.", "prompt")
        return texts

    def to_proto(self, prompt: str) -> infer_pb2.GenerateRequest:
        extra = self.model_extra or {}
        return infer_pb2.GenerateRequest(
            model=self.model,
            task=infer_pb2.TASK_COMPLETE,
            text=prompt,
            sampling=self.sampling(self.max_tokens),
            n=self.n or 0,
            stream=self.stream,
            top_logprobs=self.logprobs,
            extra=to_struct(extra, "body") if extra else None,
        )


class EmbeddingsBody(OpenAIModel):
    """Texts, or their tokens, to embed."""

    input: str | list[str] | list[TokenId] | list[list[TokenId]]
    model: ModelName = "default-embedding"
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    input_type: Literal["query", "passage", "document"] | None = None

    def to_proto(self) -> retrieve_pb2.EmbedRequest:
        given: list[Any] = self.input if isinstance(self.input, list) else [self.input]
        if given and isinstance(given[0], int):
            given = [given]
        if not given or not all(given):
            _refuse("INPUT_EMPTY", "input must not be empty.", "input")
        return retrieve_pb2.EmbedRequest(
            model=self.model,
            inputs=[_embed_input(each) for each in given],
            input_type=INPUT_TYPES[self.input_type or "passage"],
            dimensions=self.dimensions or 0,
        )


def _embed_input(given: str | list[int]) -> retrieve_pb2.EmbedInput:
    if isinstance(given, str):
        return retrieve_pb2.EmbedInput(text=given)
    return retrieve_pb2.EmbedInput(tokens=retrieve_pb2.TokenIds(ids=given))


def _tool_choice(choice: str | NamedTool | None) -> infer_pb2.ToolChoice | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        return infer_pb2.ToolChoice(mode=TOOL_CHOICES[choice])
    return infer_pb2.ToolChoice(
        mode=infer_pb2.TOOL_CHOICE_MODE_FUNCTION, function=choice.function.name
    )


def _refuse(reason: str, message: str, param: str) -> NoReturn:
    raise InvalidArgument(reason, message, field=param)
