"""NVIDIA NIM's server, to docs.nvidia.com/nim/large-language-models."""

from __future__ import annotations

from pydantic import SecretStr

from services.infer.adapters.nim import NimSettings
from tests.contract.infer.servers.openai import KEY, OpenAIServer


class NimServer(OpenAIServer):
    """A self-hosted NIM."""

    stands_in = "a scripted server of NIM's API"

    def start(self) -> None:
        self.settings = NimSettings(url=self.url, api_key=SecretStr(KEY))
