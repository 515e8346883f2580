import subprocess
import sys

import pytest
from pydantic import SecretStr

from services.infer.__main__ import build
from services.infer.adapters.nim import NimEngine, NimSettings
from services.infer.adapters.openai import OpenAISettings
from services.infer.adapters.vllm import VllmSettings
from services.infer.providers import build_provider, build_providers
from services.infer.settings import InferSettings
from services.runtime.errors import FailedPrecondition, InvalidArgument, Unimplemented

LEGACY = ("MODEL_BACKEND", "LLM_BACKEND", "BACKEND", "BACKEND_URL", "NIM_URL", "NIM_API_KEY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in (*LEGACY, "NGC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("placeholder", "extractive"),
        ("nim_remote", "nim"),
        ("aira_local", "aira"),
        ("litellm_local", "llamacpp"),
        ("trt", "trtllm"),
        ("VLLM", "vllm"),
        ("", "extractive"),
    ],
)
def test_names_of_existing_deployments(monkeypatch, value, expected):
    monkeypatch.setenv("MODEL_BACKEND", value)
    assert InferSettings().model_backend == expected


def test_which_name_wins(monkeypatch):
    seen = []
    for name, value in (
        ("BACKEND", "vllm"),
        ("LLM_BACKEND", "nim"),
        ("MODEL_BACKEND", "scripted"),
        ("RAGMESH_MODEL_BACKEND", "extractive"),
    ):
        monkeypatch.setenv(name, value)
        seen.append(InferSettings().model_backend)
    assert seen == ["vllm", "nim", "scripted", "extractive"]


async def made(settings):
    providers = build_providers(settings)
    for provider in providers.values():
        await provider.engine.aclose()
    return providers


async def test_providers_live_side_by_side(monkeypatch):
    monkeypatch.setenv("NIM_URL", "http://nim:8000")
    monkeypatch.setenv("NGC_API_KEY", "k1")
    monkeypatch.setenv("OPENAI_API_KEY", "k2")
    monkeypatch.setenv("RAGMESH_PROVIDERS", "scripted, vllm")
    monkeypatch.setenv("RAGMESH_VLLM_URL", "http://gpu:8000/")
    providers = await made(InferSettings())
    assert tuple(providers) == ("extractive", "scripted", "vllm", "nim", "openai")
    assert providers["nim"].engine.server.url == "http://nim:8000/v1"
    assert providers["openai"].engine.server.url == "https://api.openai.com/v1"
    assert providers["vllm"].engine.server.url == "http://gpu:8000/v1"
    assert NimSettings().api_key.get_secret_value() == "k1"
    assert OpenAISettings().api_key.get_secret_value() == "k2"


async def test_what_is_set_empty_is_not_set(monkeypatch):
    monkeypatch.setenv("NIM_URL", "")
    monkeypatch.setenv("RAGMESH_VLLM_MODEL", "")
    assert tuple(await made(InferSettings())) == ("extractive",)


async def test_backend_url_is_the_default_providers_address(monkeypatch):
    monkeypatch.setenv("BACKEND", "vllm")
    monkeypatch.setenv("BACKEND_URL", "http://gpu:8000/v1")
    monkeypatch.setenv("MODEL_NAME", "llama")
    monkeypatch.setenv("NIM_URL", "http://nim:8000")
    providers = await made(InferSettings())
    assert providers["vllm"].engine.server.url == "http://gpu:8000/v1"
    assert (providers["vllm"].model, providers["nim"].model) == ("llama", "")
    monkeypatch.setenv("RAGMESH_VLLM_URL", "http://own:1")
    monkeypatch.setenv("RAGMESH_VLLM_MODEL", "own")
    providers = await made(InferSettings())
    assert providers["vllm"].engine.server.url == "http://own:1/v1"
    assert providers["vllm"].model == "own"


async def test_the_key_of_the_default_wins_over_a_vendors_variable(monkeypatch):
    monkeypatch.setenv("NIM_API_KEY", "vendor")
    monkeypatch.setenv("RAGMESH_BACKEND_API_KEY", "ours")
    provider = build_provider("nim", InferSettings(model_backend="nim", model_name="m"))
    assert isinstance(provider.engine, NimEngine)
    assert provider.engine.settings.api_key.get_secret_value() == "ours"


async def test_limits_are_the_providers_own_or_the_general_ones():
    settings = InferSettings(max_concurrency=3, context_length=4096)
    vllm = build_provider("vllm", settings, VllmSettings(max_concurrency=7, context_length=512))
    nim = build_provider("nim", settings, NimSettings())
    assert (vllm.context_length, nim.context_length) == (512, 4096)


def test_a_missing_setting_is_named():
    with pytest.raises(FailedPrecondition, match="RAGMESH_VLLM_URL"):
        VllmSettings(url="").require("url", "http://gpu:8000/v1")


def test_engines_modules_need_no_vendor():
    code = (
        "import sys; from services.infer.providers import read; "
        "from services.infer.adapters import REGISTRY; [read(name) for name in REGISTRY]; "
        "heavy = {'torch', 'vllm', 'transformers', 'llama_cpp', 'litellm', 'tritonclient'}; "
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("target", ["ollama", "ollama/", "/phi3"])
def test_an_alias_needs_a_provider_and_a_model(monkeypatch, target):
    monkeypatch.setenv("RAGMESH_MODEL_ALIASES", f'{{"fast": "{target}"}}')
    with pytest.raises(ValueError, match="provider_model must be provider/model"):
        InferSettings()


def test_a_planned_provider_stops_the_start_and_says_so():
    with pytest.raises(Unimplemented, match="a later version brings it"):
        build(InferSettings(model_backend="anthropic"))


def test_an_unknown_provider_stops_the_start_and_lists_the_known():
    with pytest.raises(InvalidArgument, match=r"placeholder.*vllm"):
        build_provider("gpt5", InferSettings())


async def test_openai_needs_a_model_name():
    with pytest.raises(FailedPrecondition, match="MODEL_NAME"):
        build(InferSettings(model_backend="openai"))
    service = build(InferSettings(model_backend="openai", model_name="gpt-4o-mini"))
    await service.aclose()


def test_keys_do_not_show():
    assert "k1" not in repr(OpenAISettings(api_key=SecretStr("k1")))
