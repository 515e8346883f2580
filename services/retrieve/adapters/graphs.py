"""ONNX graphs of encoders: the one a model came with, else one exported once; and its outputs."""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.retrieve.adapters.exporter import EXIT_NO_TORCH
from services.retrieve.adapters.local import Ids, normalized
from services.retrieve.adapters.model_folder import ModelFolder, unreadable
from services.retrieve.adapters.onnx_models import kept, quantize, shipped
from services.retrieve.ports import Matrix
from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)

_EXPORT_SECONDS = 900.0
_FORMAT = "encoder-1"
"""Changes when graphs have to be exported anew."""
_QUANTIZED = (
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
)
_POOLED = ("sentence_embedding", "text_embeds")
_PLAIN = frozenset({"Transformer", "Pooling", "Normalize", "Dropout"})
"""Modules that a graph of token vectors leaves to us."""


def graph(folder: ModelFolder, data: Path, *, int8: bool = False) -> Path:
    """The file to run.

    Raises:
        FailedPrecondition: ENCODER_UNREADABLE.
    """
    label = f"{folder.name.replace('/', '--')}-{folder.version()}-{_FORMAT}"
    exports = data.resolve() / "models"
    if int8:
        own = next((folder.path / one for one in _QUANTIZED if (folder.path / one).is_file()), None)
        if own is not None:
            return own
        whole = graph(folder, data)
        return kept(exports / f"{label}-int8", lambda into: quantize(whole, into))
    return shipped(folder.path) or kept(
        exports / f"{label}-onnx", lambda into: _export(folder, into)
    )


def readable(folder: ModelFolder) -> bool:
    """Whether `pooled` can read a graph of token vectors of this model."""
    return set(folder.modules) <= _PLAIN and set(folder.pooling) <= _MODES.keys()


def output(names: Sequence[str], folder: ModelFolder) -> tuple[int, bool]:
    """The place of the output that is read, and whether it is pooled already.

    Raises:
        FailedPrecondition: ENCODER_UNREADABLE.
    """
    for name in _POOLED:
        if name in names:
            return names.index(name), True
    if not readable(folder):
        raise FailedPrecondition(
            "ENCODER_UNREADABLE",
            f"The encoder {folder.name[:200]!r} has modules that its own ONNX file lacks; set "
            "EMBEDDING_BACKEND=sentence-transformers.",
        )
    return 0, False


def feed(names: Sequence[str], ids: Ids, mask: Ids) -> Mapping[str, Ids]:
    """A graph's inputs."""
    given = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in names:
        given["token_type_ids"] = np.zeros_like(ids)
    return given


def pooled(tokens: Any, mask: Ids, modes: Sequence[str]) -> Matrix:
    """One vector an input, of length 1, from those of its tokens, as sentence-transformers does.

    Args:
        tokens: shape (inputs, tokens, dimensions).
        mask: shape (inputs, tokens); rows are padded on the right.
        modes: whose results are joined.
    """
    values = np.asarray(tokens, np.float32)
    return normalized(np.concatenate([_MODES[mode](values, mask) for mode in modes], axis=1))


def _mean(values: Matrix, mask: Ids) -> Matrix:
    made: Matrix = _sum(values, mask) / mask.sum(axis=1, keepdims=True)
    return made


def _root_mean(values: Matrix, mask: Ids) -> Matrix:
    made: Matrix = _sum(values, mask) / np.sqrt(mask.sum(axis=1, keepdims=True))
    return made


def _weighted_mean(values: Matrix, mask: Ids) -> Matrix:
    weights = mask * np.arange(1, mask.shape[1] + 1)
    made: Matrix = _sum(values, weights) / weights.sum(axis=1, keepdims=True)
    return made


def _sum(values: Matrix, weights: Ids) -> Matrix:
    made: Matrix = np.einsum("itd,it->id", values, weights.astype(np.float32))
    return made


def _max(values: Matrix, mask: Ids) -> Matrix:
    made: Matrix = np.where(mask[..., None] > 0, values, -np.inf).max(axis=1)
    return made


def _first(values: Matrix, mask: Ids) -> Matrix:
    return values[:, 0]


def _last(values: Matrix, mask: Ids) -> Matrix:
    made: Matrix = values[np.arange(len(values)), mask.sum(axis=1) - 1]
    return made


_MODES = {
    "cls": _first,
    "lasttoken": _last,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _root_mean,
    "weightedmean": _weighted_mean,
}


def _export(folder: ModelFolder, into: Path) -> None:
    log.info("exporting the encoder", extra={"encoder": folder.name})
    command = [sys.executable, "-m", "services.retrieve.adapters.exporter", str(folder.path)]
    try:
        done = subprocess.run(
            [*command, str(into)], capture_output=True, timeout=_EXPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise unreadable(folder.name) from error
    if done.returncode == EXIT_NO_TORCH:
        raise FailedPrecondition(
            "ENCODER_UNREADABLE",
            f"The encoder {folder.name[:200]!r} has no onnx/model.onnx, and exporting it needs the "
            "extra ragmesh[embed-torch].",
        )
    if done.returncode or not (into / "model.onnx").is_file():
        log.error(
            "the encoder could not be exported",
            extra={"encoder": folder.name, "status": done.returncode,
                   "error": done.stderr.decode("utf-8", "replace")[-2000:]},
        )  # fmt: skip
        raise unreadable(folder.name)
