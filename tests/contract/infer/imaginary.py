"""An engine that nobody has, as somebody would add it: this file, and one line in REGISTRY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from pydantic_settings import SettingsConfigDict

from services.infer.ports import (
    Capabilities,
    Delta,
    EngineEvent,
    Finish,
    GenerateRequest,
    ModelInfo,
    Usage,
)
from services.infer.settings import EngineSettings


class ImaginarySettings(EngineSettings):
    """An engine in this process that repeats a word."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_IMAGINARY_")

    word: str = "ええ"
    """What it says."""


class ImaginaryEngine:
    """Says one word a few times."""

    Settings = ImaginarySettings

    def __init__(self, settings: ImaginarySettings) -> None:
        self._word = settings.word

    @classmethod
    def from_settings(cls, settings: ImaginarySettings) -> ImaginaryEngine:
        return cls(settings)

    def capabilities(self, model: str = "") -> Capabilities:
        return Capabilities(completions=True)

    async def models(self) -> Sequence[ModelInfo]:
        return (ModelInfo("words", 2048, "nobody"),)

    async def ready(self) -> None:
        """It always is."""

    async def aclose(self) -> None:
        """It holds nothing."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        count = min(3, request.sampling.max_tokens or 3)
        for _ in range(count):
            await asyncio.sleep(0)
            yield Delta(self._word)
        yield Finish()
        yield Usage(1, count)
