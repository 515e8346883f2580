"""llama.cpp: a GGUF file in this process, or a server by URL.

In process one thread generates, one caller after the other: llama.cpp itself uses every core for
one sequence, and the next caller finds the common beginning of the prompts already read.
"""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import DOWN, failure
from services.infer.adapters.llamacpp_server import LlamaCppServer
from services.infer.adapters.openai_body import body_of
from services.infer.adapters.pieces import Pieces
from services.infer.adapters.threads import Stopped, Thread, guarded
from services.infer.adapters.vocabulary import PLAIN_CHAT, refused_by_template
from services.infer.lengths import too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    GuideKind,
    ModelInfo,
    Task,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from services.infer.settings import LocalSettings, ServerSettings, names
from services.runtime.errors import FailedPrecondition, InvalidArgument
from services.runtime.registry import package

log = logging.getLogger(__name__)

Emit = Callable[[EngineEvent], None]


class LlamaCppSettings(ServerSettings, LocalSettings):
    """llama.cpp, in process with a GGUF file or as a server by URL."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_LLAMACPP_")

    model_path: str = Field(
        "",
        validation_alias=names("LLAMACPP_MODEL_PATH", "LITELLM_MODEL_PATH"),
    )
    """The GGUF file to load in process; not read when an address is set."""
    threads: int = Field(0, ge=0)
    """Threads of one generation; 0: as many as cores."""
    batch: int = Field(256, ge=8)
    """Tokens of the prompt that are read at once; a caller who leaves is noticed after each."""
    gpu_layers: int = 0
    """Layers that a GPU computes, where llama.cpp was built for one; -1: all."""


class LlamaCppEngine:
    """A GGUF model in this process."""

    Settings = LlamaCppSettings

    def __init__(self, settings: LlamaCppSettings, llama_cpp: Any) -> None:
        """Args:
        settings: where the file lies.
        llama_cpp: the package.

        Raises:
            FailedPrecondition: SETTING_REQUIRED, MODEL_PATH_UNREADABLE.
        """
        self._settings = settings
        self._library = llama_cpp
        self._path = Path(settings.require("model_path", "/models/model.gguf"))
        if not self._path.is_file():
            raise FailedPrecondition(
                "MODEL_PATH_UNREADABLE", f"{self._path} is not a file that can be read."
            )
        self._thread = Thread("llamacpp")
        self._counting = Thread("llamacpp-count")
        self._model: _Model | None = None

    @classmethod
    def from_settings(cls, settings: LlamaCppSettings) -> "LlamaCppEngine | LlamaCppServer":
        if settings.url:
            return LlamaCppServer(settings)
        return cls(settings, package("llama_cpp", "model provider 'llamacpp'"))

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(
            json_object=True,
            json_schema=True,
            guides=frozenset({GuideKind.CHOICE, GuideKind.GRAMMAR}),
            logprobs=True,
            seed=True,
            top_k=True,
            penalties=True,
            logit_bias=True,
            completions=True,
            prefill=True,
            counts_tokens=True,
        )

    async def models(self) -> Sequence[ModelInfo]:
        length = self._model.context_length if self._model else self._settings.context_length
        return (ModelInfo(self._settings.model or self._path.stem, length, "llamacpp"),)

    async def ready(self) -> None:
        await self._ready()

    async def aclose(self) -> None:
        self._thread.close()
        self._counting.close()

    async def count_tokens(self, request: GenerateRequest) -> int:
        model = await self._ready()
        # Not behind the generations: the vocabulary is only read.
        return await self._counting.run(lambda: len(model.prompt(request)))

    async def _ready(self) -> "_Model":
        """The model, at once when it is loaded, whatever is being generated."""
        if self._model is not None:
            return self._model
        return await self._thread.run(self._loaded)

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        return self._thread.stream(partial(self._generate, request))

    def _generate(self, request: GenerateRequest, emit: Emit, stopped: Stopped) -> None:
        guarded(lambda: self._loaded().generate(request, emit, stopped))

    def _loaded(self) -> "_Model":
        """The model; loaded when it is first needed. Only the thread calls this."""
        if self._model is None:
            try:
                self._model = _Model(self._library, self._path, self._settings)
            except (ValueError, RuntimeError, OSError) as error:
                log.exception("the model cannot be loaded")
                raise failure(DOWN) from error
        return self._model


class _Left(Exception):
    """Nobody waits for the generation any more."""


@dataclass(slots=True)
class _Probabilities:
    """Keeps the scores of each step, which llama.cpp shows before it samples."""

    top: int
    scores: NDArray[np.float32] | None = None

    def __call__(self, _: Any, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        self.scores = np.array(scores, dtype=np.float32)
        return scores

    def of(self, token: int, spell: Callable[[int], bytes]) -> TokenLogprob:
        """The log-probability of the token that was sampled, and the most likely ones."""
        if self.scores is None:
            raise RuntimeError("a token was sampled before its scores were seen")
        values = self.scores.astype(np.float64)
        values -= values.max()
        values -= np.log(np.exp(values).sum())
        likely = np.argsort(values)[::-1][: self.top]
        top = tuple(TopLogprob(_text(b := spell(int(i))), float(values[i]), b) for i in likely)
        own = spell(token)
        return TokenLogprob(_text(own), float(values[token]), own, top)


class _Model:
    """A loaded model. Belongs to one thread, but for `prompt`."""

    def __init__(self, library: Any, path: Path, settings: LlamaCppSettings) -> None:
        self._library = library
        self._stopped: Stopped = lambda: False
        threads = settings.threads or None
        model = self

        class Leavable(library.Llama):  # type: ignore[misc]
            """Reads a prompt in batches, and none once the caller has left."""

            def eval(self, tokens: Sequence[int]) -> None:
                for start in range(0, len(tokens), self.n_batch):
                    if model._stopped():
                        raise _Left
                    super().eval(tokens[start : start + self.n_batch])

        self._llama = Leavable(
            str(path),
            n_ctx=settings.context_length,
            n_batch=settings.batch,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=settings.gpu_layers,
            verbose=False,
        )
        self._vocabulary = library.llama_model_get_vocab(self._llama.model)
        template = self._llama.metadata.get("tokenizer.chat_template", PLAIN_CHAT)
        formats = library.llama_chat_format
        self._template = formats.Jinja2ChatFormatter(
            template,
            eos_token=self._spelling(self._llama.token_eos()),
            bos_token=self._spelling(self._llama.token_bos()),
        )

    @property
    def context_length(self) -> int:
        return int(self._llama.n_ctx())

    def prompt(self, request: GenerateRequest) -> list[int]:
        """The tokens that the model reads."""
        if request.task is Task.COMPLETE:
            return self._tokens(request.text, add_bos=True)
        messages = [
            {**one, "content": one["content"] or ""} for one in body_of(request)["messages"]
        ]
        opening = ""
        if request.continue_final:
            *messages, last = messages
            opening = last["content"]
        try:
            rendered = self._template(messages=messages)
        except Exception as error:  # templates raise jinja2's errors, and Python's
            raise refused_by_template() from error
        return self._tokens(rendered.prompt + opening, add_bos=not rendered.added_special)

    def generate(self, request: GenerateRequest, emit: Emit, stopped: Stopped) -> None:
        prompt = self.prompt(request)
        room = self.context_length - len(prompt)
        if room < 1:
            field = "prompt" if request.task is Task.COMPLETE else "messages"
            raise too_long(len(prompt) + 1, self.context_length, field=field)
        limit = min(request.sampling.max_tokens or room, room)
        probabilities = (
            None if request.top_logprobs is None else _Probabilities(request.top_logprobs)
        )
        pieces = Pieces(request.sampling.stop)
        reason, made = FinishReason.LENGTH, 0
        self._stopped = stopped
        sampled = self._sampled(prompt, request, probabilities)
        try:
            for token in sampled:
                made += 1
                if self._library.llama_vocab_is_eog(self._vocabulary, token):
                    reason = FinishReason.STOP
                    break
                text = pieces.add(self._bytes(token))
                logprobs = (probabilities.of(token, self._bytes),) if probabilities else ()
                if text or logprobs:
                    emit(Delta(text, logprobs=logprobs))
                if pieces.stopped:
                    reason = FinishReason.STOP
                    break
                if stopped():
                    return
                if made >= limit:
                    break
        except _Left:
            return
        finally:
            sampled.close()
            self._stopped = lambda: False
        if rest := pieces.end():
            emit(Delta(rest))
        emit(Finish(reason))
        emit(Usage(len(prompt), made))

    def _sampled(
        self, prompt: Sequence[int], request: GenerateRequest, probabilities: _Probabilities | None
    ) -> Any:
        """A generator of tokens. What a request leaves open is as llama.cpp's own server has it."""
        sampling = request.sampling
        processors = [
            *([partial(_biased, dict(sampling.logit_bias))] if sampling.logit_bias else ()),
            *([probabilities] if probabilities else ()),
        ]
        seed = self._library.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed
        self._llama.set_seed(seed & 0xFFFFFFFF)
        temperature = 0.8 if sampling.temperature is None else sampling.temperature
        return self._llama.generate(
            prompt,
            top_k=40 if sampling.top_k is None else sampling.top_k,
            top_p=0.95 if sampling.top_p is None else sampling.top_p,
            temp=temperature,
            frequency_penalty=sampling.frequency_penalty or 0.0,
            presence_penalty=sampling.presence_penalty or 0.0,
            logits_processor=self._library.LogitsProcessorList(processors) if processors else None,
            grammar=self._grammar(request),
        )

    def _grammar(self, request: GenerateRequest) -> Any:
        """What the answer must match, as llama.cpp's grammar; None for anything.

        Raises:
            InvalidArgument: PARAMETER_INVALID.
        """
        wanted, guide = request.response_format, request.guide
        field = "response_format" if guide is None else f"guided_{guide.kind.value}"
        try:
            if wanted.type is FormatType.JSON_OBJECT:
                grammar = self._library.llama_grammar.JSON_GBNF
            elif wanted.type is FormatType.JSON_SCHEMA:
                grammar = self._library.llama_grammar.json_schema_to_gbnf(wanted.json_schema)
            elif guide is None:
                return None
            elif guide.kind is GuideKind.CHOICE:
                grammar = "root ::= " + " | ".join(
                    json.dumps(value, ensure_ascii=False) for value in guide.values
                )
            else:
                grammar = guide.value
            self._check(grammar)
            return self._library.LlamaGrammar.from_string(grammar, verbose=False)
        except Exception as error:  # its converter of schemas asserts, and more
            raise InvalidArgument(
                "PARAMETER_INVALID", f"{field} cannot be made into a grammar.", field=field
            ) from error

    def _check(self, grammar: str) -> None:
        """Raises: ValueError, for what llama.cpp cannot parse; it would end the process else."""
        made = self._library.llama_sampler_init_grammar(self._vocabulary, grammar.encode(), b"root")
        if not made:
            raise ValueError("not a grammar")
        self._library.llama_sampler_free(made)

    def _tokens(self, text: str, *, add_bos: bool) -> list[int]:
        tokens: list[int] = self._llama.tokenize(text.encode(), add_bos=add_bos, special=True)
        return tokens

    def _bytes(self, token: int) -> bytes:
        # The token before it tells llama.cpp that this is no beginning, whose space it would drop.
        return bytes(self._llama.detokenize([token], prev_tokens=[token]))

    def _spelling(self, token: int) -> str:
        if token < 0:
            return ""
        return bytes(self._llama.detokenize([token], special=True)).decode(errors="replace")


def _biased(bias: dict[int, float], _: Any, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    for token, value in bias.items():
        if 0 <= token < len(scores):
            scores[token] += value
    return scores


def _text(token: bytes) -> str:
    return token.decode(errors="replace")
