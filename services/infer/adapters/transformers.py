"""Models in this process through Hugging Face's transformers, on a CPU or a GPU.

One thread generates, one caller after the other. For many callers at once there are servers; this
is for trying a model out, and for machines where none runs.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic_settings import SettingsConfigDict

from services.infer.adapters.failures import DOWN, failure
from services.infer.adapters.openai_body import body_of
from services.infer.adapters.pieces import Pieces
from services.infer.adapters.threads import Stopped, Thread, guarded
from services.infer.adapters.vocabulary import Vocabulary
from services.infer.lengths import too_long
from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    Task,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from services.infer.settings import LocalSettings
from services.runtime.registry import package

log = logging.getLogger(__name__)

Emit = Callable[[EngineEvent], None]

_WHO = "model provider 'transformers'"


class TransformersSettings(LocalSettings):
    """A model in this process, through transformers."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_TRANSFORMERS_")

    device: str = "auto"
    """As torch names it: ``cpu``, ``cuda``, ``cuda:1``; auto: a GPU where there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Numbers to compute in; auto: as the model was saved."""
    quantization: Literal["", "nf4", "int8"] = ""
    """bitsandbytes' weights of 4 (``nf4``) or 8 bits; needs its package and a GPU."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run here."""


class TransformersEngine:
    """A causal language model of transformers."""

    Settings = TransformersSettings

    def __init__(self, settings: TransformersSettings, transformers: Any, torch: Any) -> None:
        """Args:
        settings: where the model lies.
        transformers: the package.
        torch: the package.

        Raises:
            FailedPrecondition: SETTING_REQUIRED.
        """
        self._settings = settings
        self._packages = transformers, torch
        self._path = settings.require("model_path", "/models/my-model or owner/name")
        self._thread = Thread("transformers")
        self._counting = Thread("transformers-count")
        self._model: _Model | None = None

    @classmethod
    def from_settings(cls, settings: TransformersSettings) -> "TransformersEngine":
        if settings.quantization:
            package("bitsandbytes", f"{_WHO} with RAGMESH_TRANSFORMERS_QUANTIZATION")
        return cls(settings, package("transformers", _WHO), package("torch", _WHO))

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(
            logprobs=True,
            seed=True,
            top_k=True,
            logit_bias=True,
            completions=True,
            prefill=True,
            counts_tokens=True,
        )

    async def models(self) -> Sequence[ModelInfo]:
        length = self._model.context_length if self._model else self._settings.context_length
        name = self._settings.model or Path(self._path).name
        return (ModelInfo(name, length, "transformers"),)

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
                self._model = _Model(*self._packages, self._path, self._settings)
            except (OSError, ValueError, RuntimeError, ImportError) as error:
                log.exception("the model cannot be loaded")
                raise failure(DOWN) from error
        return self._model


class _Model:
    """A loaded model. Belongs to one thread, but for `prompt`."""

    def __init__(
        self, transformers: Any, torch: Any, path: str, settings: TransformersSettings
    ) -> None:
        self._transformers, self._torch = transformers, torch
        transformers.utils.logging.disable_progress_bar()
        trust = settings.trust_remote_code
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
        if not self._tokenizer.is_fast:
            raise ValueError("the model has no tokenizer.json")
        self.vocabulary = Vocabulary(self._tokenizer)
        self._device = device
        options: dict[str, Any] = {"dtype": settings.dtype, "trust_remote_code": trust}
        if settings.quantization:
            options["quantization_config"] = self._quantization(settings.quantization)
            options["device_map"] = device
        model = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
        self._model = model.eval() if settings.quantization else model.to(device).eval()
        known = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self.context_length = int(settings.context_length or known or 2048)
        ends = self._model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    def _quantization(self, kind: str) -> Any:
        if kind == "int8":
            return self._transformers.BitsAndBytesConfig(load_in_8bit=True)
        return self._transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self._torch.bfloat16,
        )

    def prompt(self, request: GenerateRequest) -> list[int]:
        """The tokens that the model reads."""
        if request.task is Task.COMPLETE:
            return self.vocabulary.tokens(request.text)
        return self.vocabulary.prompt(
            body_of(request)["messages"], continue_final=request.continue_final
        )

    def generate(self, request: GenerateRequest, emit: Emit, stopped: Stopped) -> None:
        torch, sampling = self._torch, request.sampling
        prompt = self.prompt(request)
        room = self.context_length - len(prompt)
        if room < 1:
            field = "prompt" if request.task is Task.COMPLETE else "messages"
            raise too_long(len(prompt) + 1, self.context_length, field=field)
        limit = min(sampling.max_tokens or room, room)
        writer = _Writer(self, request, emit, stopped, skip=len(prompt))
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        ids = torch.tensor([prompt], device=self._device)
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                streamer=writer,
                logits_processor=self._transformers.LogitsProcessorList(
                    [partial(self._biased, sampling.logit_bias), writer.see_scores]
                ),
                stopping_criteria=self._transformers.StoppingCriteriaList([writer.is_done]),
                pad_token_id=self._tokenizer.pad_token_id or 0,
                **self._how(request),
            )
        if not stopped():
            writer.finish(len(prompt))

    def _how(self, request: GenerateRequest) -> dict[str, Any]:
        """How to sample; what a request leaves open is as the model's own configuration has it."""
        sampling = request.sampling
        if sampling.temperature is not None and sampling.temperature < 0.01:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        how: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
        how = {name: value for name, value in how.items() if value is not None}
        return how | {"do_sample": True} if how else {}

    def _biased(self, bias: Any, _: Any, scores: Any) -> Any:
        for token, value in bias.items():
            if 0 <= token < scores.shape[-1]:
                scores[:, token] += value
        return scores

    def ends(self, token: int) -> bool:
        return token in self._ends

    def decoder(self) -> Callable[[int], str | None]:
        """A function from the next token to the text that is certain with it."""
        stream = package("tokenizers.decoders", _WHO).DecodeStream(skip_special_tokens=True)
        return partial(stream.step, self._tokenizer.backend_tokenizer)

    def logprobs(self, token: int, scores: Any, top: int) -> TokenLogprob:
        values = self._torch.log_softmax(scores.float(), dim=-1)
        likely = values.topk(top) if top else None
        others = (
            tuple(self._top(int(i), float(v)) for v, i in zip(*likely, strict=True))
            if likely is not None
            else ()
        )
        own = self._top(token, float(values[token]))
        return TokenLogprob(own.token, own.logprob, own.token_bytes, others)

    def _top(self, token: int, logprob: float) -> TopLogprob:
        spelled = self.vocabulary.bytes_of(token)
        return TopLogprob(spelled.decode(errors="replace"), logprob, spelled)


class _Writer:
    """What `generate` of transformers is given to stream to: a streamer (`put`, `end`), the last of
    the processors of scores, and the criterion to stop."""

    def __init__(
        self, model: _Model, request: GenerateRequest, emit: Emit, stopped: Stopped, *, skip: int
    ) -> None:
        self._model, self._emit, self._stopped = model, emit, stopped
        self._top = request.top_logprobs
        self._pieces = Pieces(request.sampling.stop)
        self._decode = model.decoder()
        self._skip = skip
        self._scores: Any = None
        self._reason = FinishReason.LENGTH
        self._made = 0

    def put(self, tokens: Any) -> None:
        for token in tokens.flatten().tolist():
            if self._skip:  # the prompt comes first
                self._skip -= 1
            else:
                self._add(token)

    def end(self) -> None:
        """`finish` does this, with the counts."""

    def see_scores(self, _: Any, scores: Any) -> Any:
        if self._top is not None:
            self._scores = scores[0].clone()
        return scores

    def is_done(self, ids: Any, _: Any, **__: Any) -> Any:
        done = self._stopped() or self._pieces.stopped
        return ids.new_full((ids.shape[0],), done).bool()

    def finish(self, prompt_tokens: int) -> None:
        if rest := self._pieces.end():
            self._emit(Delta(rest))
        self._emit(Finish(self._reason))
        self._emit(Usage(prompt_tokens, self._made))

    def _add(self, token: int) -> None:
        self._made += 1
        if self._model.ends(token):
            self._reason = FinishReason.STOP
            return
        text = self._pieces.add_text(self._decode(token) or "")
        logprobs = (
            () if self._top is None else (self._model.logprobs(token, self._scores, self._top),)
        )
        if text or logprobs:
            self._emit(Delta(text, logprobs=logprobs))
        if self._pieces.stopped:
            self._reason = FinishReason.STOP
