"""Cross-encoders in ONNX Runtime: sequence classifiers with one label.

A folder that has ``onnx/model.onnx`` (or ``model.onnx``) needs no torch. Of another one the model
is exported, by torch, when it is first loaded, and kept under ``models`` in the data folder.
"""

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from services.retrieve.adapters.cross_encoder import MAX_THREADS, unreadable
from services.retrieve.adapters.models import Cutter, card_languages, folder_digest, located
from services.retrieve.adapters.onnx_models import kept, open_session, quantize, shipped
from services.retrieve.cross_encoding import CrossEncoder
from services.retrieve.ports import Pair, RerankerFacts
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition, RagmeshError

log = logging.getLogger(__name__)

_ACTIVATIONS = ("Sigmoid", "Identity")
_OFFSETS = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"}
"""Kinds of models whose first position is behind that of the padding."""


def reranker(settings: RetrieveSettings) -> CrossEncoder:
    """The reranker of the settings."""
    model = Model(
        settings.reranker_model,
        settings.data / "models",
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
    """A `PairModel` in ONNX Runtime."""

    def __init__(
        self,
        model: str,
        exports: Path,
        *,
        languages: tuple[str, ...] = (),
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        max_tokens: int = 0,
    ) -> None:
        """Args:
        model: a folder or a hub id.
        exports: where exported and quantised models are kept.
        languages: that it reads; empty for what its model card says.
        device: cpu, cuda or cuda:N.
        precision: auto and float32, or int8.
        threads: of a forward pass; 0 for as many as cores, at most 4.
        max_tokens: of a pair; 0 for as many as the model reads.
        """
        if not model:
            raise FailedPrecondition(
                "RERANKER_UNREADABLE", "Set RAGMESH_RERANKER_MODEL to a folder or a hub id."
            )
        if precision == "bfloat16":
            raise FailedPrecondition(
                "RERANKER_UNREADABLE",
                "RAGMESH_RERANKER_PRECISION=bfloat16 needs the back-end cross-encoder.",
            )
        self._name = model
        self._exports = exports
        self._languages = languages
        self._device = device
        self._int8 = precision == "int8"
        self._threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._max_tokens = max_tokens

    def load(self) -> RerankerFacts:
        folder, name, owner = located(self._name)
        if folder is None:
            folder = _downloaded(name)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more exact
            raise unreadable(name, "config.json or tokenizer.json is missing or broken") from error
        _check(folder, name, config)
        self._longest = _max_tokens(folder, config)
        if self._max_tokens:
            self._longest = min(self._longest, self._max_tokens)
        self._cutter = Cutter(Tokenizer.from_str(self._tokenizer.to_str()), self._longest)
        self._tokenizer.enable_truncation(self._longest)
        self._tokenizer.no_padding()
        self._pad = int(config.get("pad_token_id") or 0)
        version = folder_digest(folder)
        try:
            self._session = open_session(
                self._file(folder, name, version), device=self._device, threads=self._threads
            )
            self._inputs = {one.name for one in self._session.get_inputs()}
            width = self._run(self.pairs("a", ["b"])).shape
        except RagmeshError:
            raise
        except Exception as error:  # of the exporter and the runtime, whose errors have no family
            log.exception("the reranker cannot be loaded", extra={"reranker": name})
            raise unreadable(
                name, "ONNX Runtime cannot run it, though the back-end cross-encoder may"
            ) from error
        if width != (1, 1):
            raise unreadable(name, f"a pair has {width[-1]} scores, not one")
        facts = RerankerFacts(
            name=name,
            version=f"{version}-int8" if self._int8 else version,
            max_tokens=self._longest,
            languages=self._languages or card_languages(folder),
            owned_by=owner,
        )
        log.info("reranker loaded", extra={"reranker": facts.id, "threads": self._threads})
        return facts

    def pairs(self, query: str, texts: Sequence[str]) -> Sequence[Pair]:
        query = self._cutter.query(query)
        encodings = self._tokenizer.encode_batch(
            [(query, self._cutter.text(text)) for text in texts]
        )
        return [Pair((one.ids, one.type_ids), len(one.ids)) for one in encodings]

    def forward(self, batch: Sequence[Pair]) -> Sequence[float]:
        logits = self._run(batch)[:, 0].astype(np.float64)
        # Models that leave their scores as they are get the same: the order stays.
        # The logistic function, in a form that does not overflow.
        return [float(score) for score in 0.5 + 0.5 * np.tanh(0.5 * logits)]

    def _run(self, batch: Sequence[Pair]) -> Any:
        """Scores of shape (pairs, labels)."""
        width = max(pair.tokens for pair in batch)
        ids = np.full((len(batch), width), self._pad, dtype=np.int64)
        types = np.zeros((len(batch), width), dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, pair in enumerate(batch):
            one: Any = pair.data
            ids[row, : pair.tokens], types[row, : pair.tokens] = one
            mask[row, : pair.tokens] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        wanted = {name: value for name, value in given.items() if name in self._inputs}
        return self._session.run(None, wanted)[0]

    def _file(self, folder: Path, name: str, version: str) -> Path:
        """The file to run: the folder's own, or one of ours."""
        label = f"{name.replace('/', '--')}-{version}"
        file = shipped(folder)
        if file is None:
            file = kept(self._exports / f"{label}-onnx", lambda into: _export(folder, name, into))
        if not self._int8:
            return file
        whole = file
        return kept(self._exports / f"{label}-int8", lambda into: quantize(whole, into))


def _check(folder: Path, name: str, config: Mapping[str, Any]) -> None:
    """Refuse what is more than a sequence classifier with one label."""
    kinds = config.get("architectures") or [""]
    if not str(kinds[0]).endswith("ForSequenceClassification"):
        raise unreadable(name, f"{kinds[0] or 'it'} is no sequence classifier")
    own = folder / "config_sentence_transformers.json"
    library = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    if library.get("default_prompt_name"):
        raise unreadable(name, "it wants a prompt, as the back-end cross-encoder gives it")
    activation = (
        library.get("activation_fn")
        or (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
        or "Sigmoid"
    )
    if activation.rpartition(".")[2] not in _ACTIVATIONS:
        raise unreadable(name, f"its activation is {activation}")


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    """How long a pair may be: what the tokenizer says, within the model's positions."""
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in _OFFSETS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    own = folder / "tokenizer_config.json"
    said = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    return min(positions, int(said.get("model_max_length") or positions))


def _downloaded(name: str) -> Path:
    """The folder of a hub id, from the hub's cache or the hub."""
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  not in every image
    except ImportError as error:
        raise unreadable(name, "it is no folder, and huggingface-hub is not installed") from error
    try:
        return Path(snapshot_download(name, ignore_patterns=["*.h5", "*.msgpack", "*.ot"]))
    except (OSError, ValueError) as error:
        raise unreadable(name, "it is neither a folder nor at hand from the hub") from error


def _export(folder: Path, name: str, into: Path) -> None:
    """Write a folder's model into ``model.onnx``."""
    try:
        import torch  # noqa: PLC0415  only where a model came without its ONNX file
        from transformers import AutoModelForSequenceClassification  # noqa: PLC0415
    except ImportError as error:
        raise unreadable(
            name, "it has no onnx/model.onnx, and exporting it needs the extra ragmesh[embed-torch]"
        ) from error
    try:
        model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise unreadable(name, "transformers cannot load it") from error
    model.eval()
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    log.info("exporting the reranker", extra={"reranker": name})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own libraries
        torch.onnx.export(
            model,
            # One tensor each: the exporter takes one that is given twice for one input.
            kwargs={name: torch.ones((2, 8), dtype=torch.int64) for name in names},
            f=str(into / "model.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes={
                name: {0: torch.export.Dim("pairs"), 1: torch.export.Dim("tokens")}
                for name in names
            },
            dynamo=True,
            verbose=False,
            external_data=True,
        )
