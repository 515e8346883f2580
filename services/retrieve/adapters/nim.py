"""NVIDIA's embedding NIM: OpenAI's route with ``input_type`` and ``truncate``.

After the API of NeMo Retriever Text Embedding NIM; A NIM that is still
loading answers 503, and the start goes on asking.
"""

from collections.abc import Sequence
from typing import Any

from services.retrieve.adapters.openai import RemoteEncoder
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition


class NimEncoder(RemoteEncoder):
    """An encoder behind a NIM."""

    backend = "nim"

    @classmethod
    def from_settings(cls, settings: RetrieveSettings) -> "NimEncoder":
        url = settings.embedding_url
        if not url:
            raise FailedPrecondition(
                "ENCODER_MISCONFIGURED",
                "EMBEDDING_BACKEND=nim needs EMBEDDING_URL, such as http://nim-embed:8000/v1.",
            )
        key = settings.embedding_api_key.get_secret_value()
        key = key or settings.nim_api_key.get_secret_value()
        return cls(url, settings.embedding_model, api_key=key, settings=settings)

    def body(self, texts: Sequence[str], *, query: bool) -> dict[str, Any]:
        return {
            **super().body(texts, query=query),
            "input_type": "query" if query else "passage",
            # Texts are cut before they come here, by a count that may be an estimate.
            "truncate": "END",
        }
