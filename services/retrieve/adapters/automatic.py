"""The encoder that is the fastest here at the quality of torch in float32; see ADR 19."""

import importlib.util
import logging
from collections.abc import Sequence

from services.retrieve.adapters import onnx, openvino, sentence_transformers
from services.retrieve.adapters.local import LocalModel
from services.retrieve.ports import EncoderFacts, EncoderInput, EncoderText, Forward
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition

log = logging.getLogger(__name__)


class Automatic:
    """The first back-end that can run the model."""

    def __init__(self, candidates: Sequence[tuple[str, LocalModel]]) -> None:
        """Args:
        candidates: names and models, the best first.
        """
        self._candidates = candidates
        self._chosen = candidates[-1][1]

    @classmethod
    def from_settings(cls, settings: RetrieveSettings) -> "Automatic":
        return cls([(name, _CLASSES[name].from_settings(settings)) for name in choices(settings)])

    async def start(self) -> EncoderFacts:
        for name, model in self._candidates:
            self._chosen = model
            try:
                facts = await model.start()
            except FailedPrecondition as error:
                await model.aclose()
                if name == self._candidates[-1][0]:
                    raise
                log.warning(
                    "a back-end cannot run the encoder, the next one is tried",
                    extra={"backend": name, "reason": error.reason},
                )
                continue
            log.info("embedding back-end chosen", extra={"backend": name})
            return facts
        raise AssertionError("there is at least one candidate")

    async def aclose(self) -> None:
        await self._chosen.aclose()

    async def prepare(
        self, inputs: Sequence[EncoderText], *, query: bool, truncate: bool
    ) -> Sequence[EncoderInput]:
        return await self._chosen.prepare(inputs, query=query, truncate=truncate)

    async def encode(self, batch: Sequence[EncoderInput], *, query: bool) -> Forward:
        return await self._chosen.encode(batch, query=query)


_CLASSES: dict[str, type[LocalModel]] = {
    "onnx": onnx.Model,
    "openvino": openvino.Model,
    "sentence-transformers": sentence_transformers.Model,
}


def choices(settings: RetrieveSettings) -> list[str]:
    """Back-ends that may run the model, the best first; at least one."""
    if settings.embedding_device != "cpu":
        return ["sentence-transformers"]
    if settings.embedding_precision == "int8":
        return ["onnx"]
    names = [
        name
        for name, package in (("openvino", "openvino"), ("onnx", "onnxruntime"))
        if importlib.util.find_spec(package) is not None
        and not (name == "onnx" and settings.embedding_precision == "bfloat16")
    ]
    return [*names, "sentence-transformers"]
