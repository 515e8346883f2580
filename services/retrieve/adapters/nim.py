"""NVIDIA's embedding NIM: OpenAI's route with ``input_type`` and ``truncate``.

After the API of NeMo Retriever Text Embedding NIM. The start asks ``GET /v1/health/ready`` until
the model is loaded; the hosted API has no such route and is ready.
"""

from collections.abc import Sequence
from typing import Any

from services.retrieve.adapters.openai import RemoteEncoder
from services.retrieve.settings import RetrieveSettings
from services.runtime.errors import FailedPrecondition, Unavailable


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

    async def check_ready(self) -> None:
        """Raises:
        Unavailable: ENCODER_LOADING: the NIM says that it is still loading.
        """
        status = await self._server.status(f"{self._base}/health/ready")
        if status >= 500:
            raise Unavailable("ENCODER_LOADING", "The embedding NIM is still loading its model.")

    def body(self, texts: Sequence[str], *, query: bool) -> dict[str, Any]:
        return {
            **super().body(texts, query=query),
            "input_type": "query" if query else "passage",
            # Texts are cut before they come here, by a count that may be an estimate.
            "truncate": "END",
        }
