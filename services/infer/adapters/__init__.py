"""Engines. Adding one is a module here and a line in REGISTRY.

A row's class has `Settings`, an EngineSettings whose ``env_prefix`` is ``RAGMESH_<PROVIDER>_``, and
``from_settings(settings)``, and satisfies the port Engine. Its module is imported wherever the
settings of all providers are read, so it imports without its vendor's package: that is loaded in
`ready`, or by `services.runtime.registry.package` in ``from_settings``.
"""

from collections.abc import Mapping

REGISTRY: Mapping[str, str] = {
    "aira": "services.infer.adapters.aira:AiraEngine",
    "azure": "services.infer.adapters.azure:AzureEngine",
    "extractive": "services.infer.adapters.extractive:ExtractiveEngine",
    "litellm": "services.infer.adapters.litellm:LiteLlmEngine",
    "llamacpp": "services.infer.adapters.llamacpp:LlamaCppEngine",
    "nim": "services.infer.adapters.nim:NimEngine",
    "ollama": "services.infer.adapters.ollama:OllamaEngine",
    "openai": "services.infer.adapters.openai:OpenAIEngine",
    "scripted": "services.infer.adapters.scripted:ScriptedEngine",
    "sglang": "services.infer.adapters.sglang:SglangEngine",
    "tgi": "services.infer.adapters.tgi:TgiEngine",
    "transformers": "services.infer.adapters.transformers:TransformersEngine",
    "triton": "services.infer.adapters.triton:TritonEngine",
    "trtllm": "services.infer.adapters.trtllm:TrtllmEngine",
    "vllm": "services.infer.adapters.vllm:VllmEngine",
    "vllm-local": "services.infer.adapters.vllm_local:VllmLocalEngine",
}
"""Provider -> its engine's class."""

PLANNED = frozenset(
    {
        "anthropic",
    }
)
"""Providers that a later version brings: asking for one stops the start and says so."""
