import pytest
from pydantic import SecretStr

from services.infer.__main__ import build, provider
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


def test_providers_live_side_by_side(monkeypatch):
    monkeypatch.setenv("NIM_URL", "http://nim:8000")
    monkeypatch.setenv("NGC_API_KEY", "k1")
    monkeypatch.setenv("OPENAI_API_KEY", "k2")
    monkeypatch.setenv("RAGMESH_PROVIDERS", "scripted, vllm")
    monkeypatch.setenv("RAGMESH_VLLM_URL", "http://gpu:8000/")
    settings = InferSettings()
    assert settings.active_providers() == ("extractive", "scripted", "vllm", "openai", "nim")
    assert settings.server_of("nim") == ("http://nim:8000/v1", "k1")
    assert settings.server_of("openai") == ("https://api.openai.com/v1", "k2")
    assert settings.server_of("vllm") == ("http://gpu:8000/v1", "")


def test_backend_url_is_the_default_providers_address(monkeypatch):
    monkeypatch.setenv("BACKEND", "vllm")
    monkeypatch.setenv("BACKEND_URL", "http://gpu:8000/v1")
    monkeypatch.setenv("MODEL_NAME", "llama")
    settings = InferSettings()
    assert settings.server_of("vllm") == ("http://gpu:8000/v1", "")
    assert (settings.model_of("vllm"), settings.model_of("nim")) == ("llama", "")


@pytest.mark.parametrize("target", ["ollama", "ollama/", "/phi3"])
def test_an_alias_needs_a_provider_and_a_model(monkeypatch, target):
    monkeypatch.setenv("RAGMESH_MODEL_ALIASES", f'{{"fast": "{target}"}}')
    with pytest.raises(ValueError, match="provider_model must be provider/model"):
        InferSettings()


def test_a_planned_provider_stops_the_start_and_says_so():
    with pytest.raises(Unimplemented, match="a later version brings it"):
        build(InferSettings(model_backend="trt"))


def test_an_unknown_provider_stops_the_start_and_lists_the_known():
    with pytest.raises(InvalidArgument, match=r"placeholder.*vllm"):
        provider("gpt5", InferSettings())


async def test_openai_needs_a_model_name():
    with pytest.raises(FailedPrecondition, match="MODEL_NAME"):
        build(InferSettings(model_backend="openai"))
    service = build(InferSettings(model_backend="openai", model_name="gpt-4o-mini"))
    await service.aclose()


def test_keys_do_not_show():
    assert "k1" not in repr(InferSettings(nim_api_key=SecretStr("k1")))
