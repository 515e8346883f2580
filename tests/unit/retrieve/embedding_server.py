"""A small server of OpenAI's ``/v1/embeddings``, which a NIM has too, over the words of a text."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.unit.retrieve.fakes import DIMENSIONS, WordModel
from tests.unit.retrieve.rerank_server import RerankServer, serving

MODEL = "acme/words"
MOST = 32


@dataclass
class EmbeddingServer(RerankServer):
    """Behaves as told; see `RerankServer`."""

    kind: str = "openai"
    reads_base64: bool = True
    """Whether it heeds `encoding_format`."""
    dimensions: int = DIMENSIONS
    rows: list[Any] = field(default_factory=list)
    """Answered in place of vectors, where set."""

    @property
    def route(self) -> str:
        return "/v1/embeddings"

    def _answer(self, request: Any) -> Any:
        fields = {"model", "input", "encoding_format", "dimensions"}
        if self.kind == "nim":
            assert request["input_type"] in ("query", "passage")
            assert request["truncate"] in ("NONE", "START", "END")
            fields |= {"input_type", "truncate"}
        assert set(request) <= fields, request
        texts = request["input"]
        assert 0 < len(texts) <= MOST
        model = WordModel()
        tokens = model.tokenize(texts, query=False, truncate=False)
        # Not of length 1, and in another order: both are for the client to mend.
        vectors = 3 * model.forward([one.ids for one in tokens])[:, : self.dimensions]
        data = [
            {"object": "embedding", "index": index, "embedding": self._spelled(row, request)}
            for index, row in enumerate(self.rows or vectors)
        ]
        used = sum(len(one.ids) for one in tokens)
        return {
            "object": "list", "data": data[::-1], "model": request["model"],
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }  # fmt: skip

    def _spelled(self, row: Any, request: Any) -> Any:
        if self.reads_base64 and request.get("encoding_format") == "base64":
            return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()
        return np.asarray(row).tolist()


@asynccontextmanager
async def embedding_server(**state: Any) -> AsyncIterator[EmbeddingServer]:
    async with serving(EmbeddingServer(**state)) as server:
        yield server
