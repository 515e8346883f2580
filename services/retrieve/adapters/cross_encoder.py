"""Cross-encoders that the sentence-transformers library runs in torch.

Whatever its `CrossEncoder` reads: sequence classifiers with one label, and language models that it
turns into rerankers. torch takes seconds to import, so that happens in `load`, in the reranker's
thread.
"""

import copy
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.retrieve.adapters.models import (
    Cutter,
    card_languages,
    computes_bfloat16,
    folder_digest,
    located,
)
from services.retrieve.cross_encoding import CrossEncoder
from services.retrieve.ports import Pair, RerankerFacts
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition, RagmeshError

log = logging.getLogger(__name__)

MAX_THREADS = 4


def reranker(settings: RetrieveSettings) -> CrossEncoder:
    """The reranker of the settings."""
    model = Model(
        settings.reranker_model,
        languages=settings.reranker_languages,
        device=settings.reranker_device,
        precision=settings.reranker_precision,
        threads=settings.reranker_threads,
        max_tokens=settings.reranker_max_tokens,
    )
    return CrossEncoder(
        model, batch_tokens=settings.reranker_batch_tokens, queue=settings.reranker_queue
    )


class Model:
    """A `PairModel` in torch."""

    def __init__(
        self,
        model: str,
        *,
        languages: tuple[str, ...] = (),
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        max_tokens: int = 0,
    ) -> None:
        """Args:
        model: a folder or a hub id.
        languages: that it reads; empty for what its model card says.
        device: as torch names it.
        precision: auto, float32 or bfloat16.
        threads: of a forward pass on a CPU; 0 for as many as cores, at most 4.
        max_tokens: of a pair; 0 for as many as the model reads.
        """
        if not model:
            raise FailedPrecondition(
                "RERANKER_UNREADABLE", "Set RAGMESH_RERANKER_MODEL to a folder or a hub id."
            )
        if precision == "int8":
            raise FailedPrecondition(
                "RERANKER_UNREADABLE", "RAGMESH_RERANKER_PRECISION=int8 needs the back-end onnx."
            )
        self._name = model
        self._languages = languages
        self._device = device
        self._precision = precision
        self._threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._max_tokens = max_tokens

    def load(self) -> RerankerFacts:
        try:
            # Seconds of imports; see the module's docstring.
            import torch  # noqa: PLC0415
            from sentence_transformers import CrossEncoder as Library  # noqa: PLC0415
            from transformers.utils import logging as transformers_logging  # noqa: PLC0415
        except ImportError as error:
            raise FailedPrecondition(
                "RERANKER_UNREADABLE",
                "RERANKER_BACKEND=cross-encoder needs the extra ragmesh[embed-torch].",
            ) from error
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        folder, name, owner = located(self._name)
        dtype = torch.bfloat16 if self._use_bfloat16() else torch.float32
        try:
            self._model: Any = Library(
                str(folder or name), device=self._device, model_kwargs={"dtype": dtype}
            )
            # Its own: tokenizers are not made for two threads.
            self._tokenizer: Any = copy.deepcopy(self._model.tokenizer)
        except Exception as error:  # of four libraries, for files and devices of all kinds
            log.exception("the reranker cannot be loaded", extra={"reranker": name})
            raise unreadable(name, "sentence-transformers cannot load it") from error
        if self._model.num_labels != 1:
            raise unreadable(name, f"it has {self._model.num_labels} labels, not one")
        longest = int(self._model.max_seq_length or self._max_tokens or 512)
        self._longest = min(longest, self._max_tokens or longest)
        self._model.max_seq_length = self._longest
        own = getattr(self._tokenizer, "backend_tokenizer", None)
        exact = Tokenizer.from_str(own.to_str()) if isinstance(own, Tokenizer) else None
        self._cutter = Cutter(exact, self._longest)
        self._torch = torch
        # Where a model leaves its scores as they are, they are brought between 0 and 1 here: the
        # order stays.
        raw = isinstance(self._model.activation_fn, torch.nn.Identity)
        self._activation = torch.nn.Sigmoid() if raw else self._model.activation_fn
        facts = RerankerFacts(
            name=name,
            version=folder_digest(folder) if folder else self._revision(),
            max_tokens=self._longest,
            languages=self._languages or card_languages(folder or self._card_folder(name)),
            owned_by=owner,
        )
        log.info(
            "reranker loaded",
            extra={"reranker": facts.id, "dtype": str(dtype), "threads": self._threads},
        )
        return facts

    def pairs(self, query: str, texts: Sequence[str]) -> Sequence[Pair]:
        # Only to know how long they are: the library makes the model's own input of them, which
        # may be a chat, so its tokens come on top of this.
        query = self._cutter.query(query)
        cut = [self._cutter.text(text) for text in texts]
        encoded = self._tokenizer(
            [query] * len(cut), cut, truncation=True, max_length=self._longest
        )
        return [
            Pair((query, text), len(ids))
            for text, ids in zip(cut, encoded["input_ids"], strict=True)
        ]

    def forward(self, batch: Sequence[Pair]) -> Sequence[float]:
        self._torch.set_num_threads(self._threads)
        scores = self._model.predict(
            [pair.data for pair in batch],
            batch_size=len(batch),
            activation_fn=self._activation,
            show_progress_bar=False,
        )
        return [float(score) for score in scores]

    def _use_bfloat16(self) -> bool:
        if self._precision != "auto":
            return self._precision == "bfloat16"
        return self._device == "cpu" and computes_bfloat16()

    def _revision(self) -> str:
        """Of a model of the hub; empty where its configuration does not name it."""
        return str(getattr(self._model.config, "_commit_hash", None) or "")[:12]

    def _card_folder(self, name: str) -> Path | None:
        """The folder of the hub's cache that has a model's card."""
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  with torch only

        try:
            return Path(hf_hub_download(name, "README.md")).parent
        except (OSError, ValueError):
            return None  # no card, or no network: every language is believed


def unreadable(name: str, why: str) -> RagmeshError:
    """The refusal of a model."""
    return FailedPrecondition(
        "RERANKER_UNREADABLE",
        f"The reranker {name!r} cannot be used: {why}; set RAGMESH_RERANKER_MODEL to the folder or "
        "hub id of a cross-encoder.",
    )
