"""What servers of one protocol want and say otherwise."""

import json
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY as METRICS
from pydantic import SecretStr

from services.infer.adapters.azure import AzureEngine, AzureSettings
from services.infer.adapters.nim import NimEngine, NimSettings
from services.infer.adapters.openai import OpenAIEngine, OpenAISettings, rate_limit_reset
from services.infer.adapters.sglang import SglangEngine, SglangSettings
from services.infer.adapters.tgi import TgiEngine, TgiSettings
from services.infer.adapters.trtllm import TrtllmEngine, TrtllmSettings
from services.infer.adapters.vllm import VllmEngine, VllmSettings
from services.infer.admission import Admission
from services.infer.core import Provider
from services.infer.lengths import ContextExceeded
from services.infer.observing import Observer
from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    FormatType,
    GenerateRequest,
    Guide,
    GuideKind,
    ResponseFormat,
    Role,
    Sampling,
    Task,
    Tool,
    text_message,
)
from services.runtime.context import Caller, set_caller
from services.runtime.errors import FailedPrecondition, InvalidArgument, RagmeshError
from tests.contract.infer.scripted_http import running, sse
from tests.contract.infer.servers.azure import AzureServer
from tests.contract.infer.servers.nim import NativeNimServer, NimServer
from tests.contract.infer.servers.openai import MODEL, TEXT, OpenAIServer
from tests.contract.infer.servers.sglang import SglangServer
from tests.contract.infer.servers.tgi import TgiServer
from tests.contract.infer.servers.vllm import VllmServer
from tests.until import until

CHAT = GenerateRequest(
    model=MODEL,
    messages=(text_message(Role.USER, "hi"),),
    sampling=Sampling(max_tokens=9),
)
SCHEMA = ResponseFormat(FormatType.JSON_SCHEMA, '{"type": "object"}')
REGEX, CHOICE = Guide(GuideKind.REGEX, ("a+",)), Guide(GuideKind.CHOICE, ("a.b", "c"))
OWN_NIM = NimSettings(url="http://nim:8000/v1")
GRAMMAR = Guide(GuideKind.GRAMMAR, ('root ::= "a"',))


@pytest.fixture
async def make():
    made = []

    def engine(cls, settings):
        made.append(cls(settings))
        return made[-1]

    yield engine
    for each in made:
        await each.aclose()


@pytest.mark.parametrize(
    ("cls", "settings", "guide", "fields"),
    [
        (VllmEngine, VllmSettings(), REGEX, {"structured_outputs": {"regex": "a+"}}),
        (VllmEngine, VllmSettings(), CHOICE, {"structured_outputs": {"choice": ["a.b", "c"]}}),
        (NimEngine, OWN_NIM, CHOICE, {"nvext": {"guided_choice": ["a.b", "c"]}}),
        (NimEngine, OWN_NIM, GRAMMAR, {"nvext": {"guided_grammar": 'root ::= "a"'}}),
        (SglangEngine, SglangSettings(), CHOICE, {"regex": r"(a\.b|c)"}),
        (SglangEngine, SglangSettings(), GRAMMAR, {"ebnf": 'root ::= "a"'}),
        (
            TrtllmEngine,
            TrtllmSettings(),
            REGEX,
            {"response_format": {"type": "regex", "regex": "a+"}},
        ),
        (TgiEngine, TgiSettings(), REGEX, {"response_format": {"type": "regex", "value": "a+"}}),
    ],
)
async def test_guides_in_each_servers_words(make, cls, settings, guide, fields):
    body = make(cls, settings).body(replace(CHAT, guide=guide))
    assert {name: body.get(name) for name in fields} == fields


async def test_schemas_in_each_servers_words(make):
    asked = replace(CHAT, response_format=SCHEMA)
    schema = {"type": "object"}
    nim = make(NimEngine, OWN_NIM).body(asked)
    assert nim["nvext"] == {"guided_json": schema}
    assert "response_format" not in nim
    hosted = make(NimEngine, NimSettings(url="https://integrate.api.nvidia.com/v1/"))
    assert hosted.body(asked)["response_format"]["json_schema"]["schema"] == schema
    assert "nvext" not in hosted.body(asked)
    assert (hosted.capabilities().guides, hosted.settings.needs_model) == (frozenset(), True)
    trtllm = make(TrtllmEngine, TrtllmSettings()).body(asked)
    assert trtllm["response_format"] == {"type": "json", "schema": schema}
    tgi = make(TgiEngine, TgiSettings()).body(asked)
    assert tgi["response_format"] == {"type": "json", "value": schema}
    vllm = make(VllmEngine, VllmSettings()).body(asked)
    assert vllm["response_format"]["json_schema"]["schema"] == schema


async def test_openais_own_server_wants_the_limits_new_name(make):
    own = make(OpenAIEngine, OpenAISettings(organization="o", project="p"))
    assert own.body(CHAT)["max_completion_tokens"] == 9
    assert "max_tokens" not in own.body(CHAT)
    text = replace(CHAT, task=Task.COMPLETE, text="x", messages=())
    assert own.body(text)["max_tokens"] == 9
    headers = own.headers(own.settings)
    assert (headers["openai-organization"], headers["openai-project"]) == ("o", "p")
    other = make(OpenAIEngine, OpenAISettings(url="http://gpu:8000/v1"))
    assert other.body(CHAT)["max_tokens"] == 9


@pytest.mark.parametrize(
    "url",
    ["https://eu.api.openai.com/v1", "https://api.openai.com/v1/", "https://API.openai.com/v1"],
)
async def test_openai_is_itself_in_each_region(make, url):
    own = make(OpenAIEngine, OpenAISettings(url=url))
    assert own.body(CHAT)["max_completion_tokens"] == 9
    assert not own.capabilities("o3").max_stops
    assert own.settings.needs_model


async def test_a_key_from_a_file_works_and_a_broken_one_is_told(make):
    async with running(OpenAIServer()) as server:
        asked = server.settings.model_copy(update={"api_key": SecretStr("k-1\n")})
        await make(OpenAIEngine, asked).ready()
    with pytest.raises(FailedPrecondition) as caught:
        OpenAIEngine(asked.model_copy(update={"api_key": SecretStr("k-1\nk-2")}))
    assert caught.value.reason == "KEY_INVALID"
    assert "k-1" not in str(caught.value)


async def test_azures_new_route_has_versions_without_a_date(make):
    root = "https://name.openai.azure.com"
    new = make(AzureEngine, AzureSettings(url=root, api_version="preview"))
    assert new.server.url == f"{root}/openai/v1"
    assert new.route(CHAT) == "/chat/completions?api-version=preview"
    old = make(AzureEngine, AzureSettings(url=root, api_version="2024-10-21"))
    path = f"/deployments/{MODEL}/chat/completions?api-version=2024-10-21"
    assert (old.server.url, old.route(CHAT)) == (f"{root}/openai", path)


async def test_what_openais_models_take(make):
    own = make(OpenAIEngine, OpenAISettings())
    chat, reasoning = own.capabilities("gpt-4o-mini"), own.capabilities("o3-mini")
    assert (chat.logprobs, chat.max_stops, chat.completions) == (True, 4, False)
    assert (reasoning.logprobs, reasoning.penalties, reasoning.max_stops) == (False, False, 0)
    assert own.capabilities("gpt-3.5-turbo-instruct").completions


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5s"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"retry-after": "2", "x-ratelimit-remaining-requests": "0"}, 2.0),
    ],
)
def test_when_openais_limits_are_whole_again(headers, seconds):
    assert rate_limit_reset(headers) == seconds


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"error": {"code": "insufficient_quota"}}', "ENGINE_QUOTA_EXCEEDED"),
        ('{"error": {"code": "rate_limit_exceeded"}}', "ENGINE_RATE_LIMITED"),
    ],
)
def test_a_used_up_account_is_no_rate_limit(body, reason):
    error = OpenAIEngine.errors.error(429, body)
    assert error.reason == reason
    assert error.spelling.retry_helps is (reason == "ENGINE_RATE_LIMITED")


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (402, '{"status": 402, "detail": "Cloud credits expired"}', "ENGINE_QUOTA_EXCEEDED"),
        (404, "404 page not found", "MODEL_NOT_FOUND"),
        (422, '{"detail": [{"loc": ["body", "top_k"], "msg": "x"}]}', "PARAMETER_INVALID"),
        (422, '{"type": "urn:x", "status": 422, "detail": "no"}', "PARAMETER_INVALID"),
    ],
)
def test_what_nim_answers(status, body, reason):
    error = NimEngine.errors.error(status, body)
    assert error.reason == reason
    if '"loc"' in body:
        assert error.field == "top_k"


@pytest.mark.parametrize(
    ("message", "param", "reason", "field"),
    [
        (
            '\\"auto\\" tool choice requires --enable-auto-tool-choice and --tool-call-parser',
            "null",
            "PARAMETER_UNSUPPORTED",
            "tools",
        ),
        ("tiny is not a multimodal model", "null", "PARAMETER_UNSUPPORTED", "messages"),
        (
            "Grammar error: at 1(8): invalid regex",
            "null",
            "PARAMETER_INVALID",
            "structured_outputs",
        ),
        ("2 validation errors", '"body.stop"', "PARAMETER_INVALID", "stop"),
        ("temperature must be in [0, 2]", '"temperature"', "PARAMETER_INVALID", "temperature"),
        (
            "max_tokens=5000 cannot be greater than max_model_len=512. Please request fewer",
            '"max_tokens"',
            "CONTEXT_LENGTH_EXCEEDED",
            "messages",
        ),
    ],
)
def test_vllms_words(message, param, reason, field):
    """As vLLM 0.32 was seen to answer."""
    body = f'{{"error": {{"message": "{message}", "param": {param}, "code": 400}}}}'
    error = VllmEngine.errors.error(400, body)
    assert (error.reason, error.field) == (reason, field)
    if isinstance(error, ContextExceeded):
        assert (error.needed, error.limit) == (5000, 512)


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        (
            "default_max_tokens (-488) should be greater than 0, default_max_tokens (-488) = "
            "max_seq_len (512) - splited_prompt_len (1000) - query_token_len (0)",
            1000,
            512,
        ),
        (
            "The sum of prompt length (513.0), query length (1) should not exceed "
            "max_num_tokens (512)",
            513,
            512,
        ),
    ],
)
def test_trtllms_words_for_too_long(message, needed, limit):
    error = TrtllmEngine.errors.error(400, f'{{"object": "error", "message": "{message}"}}')
    assert isinstance(error, ContextExceeded)
    assert (error.reason, error.needed, error.limit) == ("CONTEXT_LENGTH_EXCEEDED", needed, limit)


def test_sglangs_words_for_too_long():
    message = (
        "Requested token count exceeds the model's maximum context length of 512 tokens. You "
        "requested a total of 613 tokens: 513 tokens from the input messages and 100 tokens"
    )
    error = SglangEngine.errors.error(400, f'{{"message": "{message}"}}')
    assert isinstance(error, ContextExceeded)
    assert (error.needed, error.limit) == (613, 512)


async def test_tgi_cannot_do_some_things_together(make):
    tgi = make(TgiEngine, TgiSettings())
    assert "top_p" not in tgi.body(replace(CHAT, sampling=Sampling(top_p=1.0)))
    for asked in (
        replace(CHAT, response_format=SCHEMA, tools=(Tool("f"),)),
        replace(CHAT, task=Task.COMPLETE, text="x", top_logprobs=1),
        replace(CHAT, task=Task.COMPLETE, text="x", response_format=SCHEMA),
    ):
        with pytest.raises(InvalidArgument) as caught:
            tgi.body(asked)
        assert caught.value.reason == "PARAMETER_UNSUPPORTED"


@pytest.mark.parametrize(
    "url", ["https://n.openai.azure.com", "https://n.openai.azure.com/openai/v1/"]
)
async def test_azures_routes(make, url):
    settings = AzureSettings(url=url, api_key=SecretStr("k"), deployments=("mine",))
    engine = make(AzureEngine, settings)
    assert engine.server.url == "https://n.openai.azure.com/openai/v1"
    assert engine.headers(settings) == {"api-key": "k"}
    dated = make(AzureEngine, settings.model_copy(update={"api_version": "2024-10-21"}))
    assert dated.server.url == "https://n.openai.azure.com/openai"
    route = dated.route(replace(CHAT, model="my/model"))
    assert route == "/deployments/my%2Fmodel/chat/completions?api-version=2024-10-21"


async def test_azure_needs_an_address(make):
    with pytest.raises(FailedPrecondition, match="RAGMESH_AZURE_URL"):
        make(AzureEngine, AzureSettings())


async def test_an_answer_that_azure_filters_ends_so(make):
    class Filtering(AzureServer):
        def pieces(self, body):
            yield sse({"choices": [], "prompt_filter_results": []})
            delta = {"index": 0, "delta": {"content": "Well"}, "finish_reason": None}
            yield sse({"choices": [delta]})
            results = {"violence": {"filtered": True, "severity": "high"}}
            end = {"index": 0, "finish_reason": "content_filter", "content_filter_results": results}
            yield sse({"choices": [end]})
            yield sse("[DONE]")

    async with running(Filtering()) as server:
        engine = make(AzureEngine, server.settings)
        events = [event async for event in engine.generate(CHAT)]
    assert events[:2] == [Delta("Well"), Finish(FinishReason.CONTENT_FILTER)]


@pytest.mark.parametrize(
    ("guide", "fields"),
    [
        (REGEX, {"structured_outputs": {"regex": "a+"}, "regex": "a+"}),
        (CHOICE, {"structured_outputs": {"choice": ["a.b", "c"]}, "regex": r"(a\.b|c)"}),
        (
            GRAMMAR,
            {"structured_outputs": {"grammar": 'root ::= "a"'}, "ebnf": 'root ::= "a"'},
        ),
    ],
)
async def test_a_nim_from_2_on_is_told_in_its_engines_words(make, guide, fields):
    async with running(NativeNimServer()) as server:
        engine = make(NimEngine, server.settings)
        await engine.models()
        body = engine.body(replace(CHAT, guide=guide))
        assert {name: body.get(name) for name in fields} == fields
        assert "nvext" not in body
        asked = engine.body(replace(CHAT, response_format=SCHEMA))
        assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert "nvext" not in asked


async def test_nims_health_is_asked_where_there_is_one(make):
    async with running(NimServer()) as server:
        await make(NimEngine, server.settings).ready()
        assert [asked.path for asked in server.asked] == [
            "/v1/health/ready",
            "/v1/models",
            "/v1/version",
        ]

    class Hosted(NimServer):
        async def other(self, asked, reply):
            await reply.send(404, "404 page not found")

    async with running(Hosted()) as server:
        await make(NimEngine, server.settings).ready()

    class Loading(NimServer):
        async def other(self, asked, reply):
            await reply.send(503, {"object": "health-response", "message": "not ready"})

    async with running(Loading()) as server:
        with pytest.raises(RagmeshError) as caught:
            await make(NimEngine, server.settings).ready()
        assert caught.value.reason == "ENGINE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Input validation error: `top_p` must be > 0.0 and < 1.0", "PARAMETER_INVALID"),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. Given: 500 "
            "`inputs` tokens and 100 `max_new_tokens`",
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        ("Model is overloaded", "ENGINE_OVERLOADED"),
        ("Template error: undefined value", "PARAMETER_UNSUPPORTED"),
        ("Request failed during generation: CUDA out of memory", "ENGINE_UNAVAILABLE"),
    ],
)
def test_what_tgi_says_inside_a_stream(message, reason):
    event = json.dumps({"error": {"message": message, "http_status_code": 422}})
    assert TgiEngine.errors.error(200, event).reason == reason


async def test_what_tgi_makes_of_penalties(make):
    engine = make(TgiEngine, TgiSettings())
    none = Sampling(presence_penalty=0.0, frequency_penalty=0.0)
    assert (
        not {"presence_penalty", "frequency_penalty"}
        & engine.body(replace(CHAT, sampling=none)).keys()
    )
    some = Sampling(presence_penalty=0.5)
    assert engine.body(replace(CHAT, sampling=some))["presence_penalty"] == 0.5
    text = GenerateRequest(model=MODEL, task=Task.COMPLETE, text="x", sampling=some)
    with pytest.raises(InvalidArgument) as caught:  # its text completions overlook it
        engine.body(text)
    assert caught.value.field == "presence_penalty"


async def test_tgis_calls_are_named_once_whatever_its_version_repeats(make):
    async with running(TgiServer()) as server:
        engine = make(TgiEngine, server.settings)
        asked = replace(CHAT, tools=(Tool("weather"),))
        *deltas, finish, usage = [event async for event in engine.generate(asked)]
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert [call.name for call in calls] == ["weather", "", ""]
    assert [call.id for call in calls] == ["call_0", "", ""]
    assert finish == Finish(FinishReason.TOOL_CALLS)
    assert not usage.estimated

    before_3 = {"tool_calls": {"index": 0, "function": {"name": "weather", "arguments": "{}"}}}
    (delta,) = engine.events({"choices": [{"index": 0, "delta": before_3}]})
    assert delta.tool_calls[0].arguments == "{}"


async def test_a_vllm_whose_engine_died_is_not_ready(make):
    class Dead(VllmServer):
        async def other(self, asked, reply):
            await reply.send(503, "")

    async with running(Dead()) as server:
        with pytest.raises(RagmeshError) as caught:
            await make(VllmEngine, server.settings).ready()
        assert caught.value.reason == "ENGINE_UNAVAILABLE"


async def test_sglang_tells_its_context_in_another_route(make):
    async with running(SglangServer()) as server:
        (model,) = await make(SglangEngine, server.settings).models()
    assert model.context_length == 512


async def test_vllm_counts_a_chat_and_a_text(make):
    async with running(VllmServer()) as server:
        engine = make(VllmEngine, server.settings)
        assert await engine.count_tokens(CHAT) > 0
        assert await engine.count_text(MODEL, "x" * 40) == 10
        bodies = server.generations
    assert bodies[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert bodies[1] == {"model": MODEL, "prompt": "x" * 40, "add_special_tokens": False}


async def test_an_error_event_after_text_keeps_its_meaning(make):
    class Failing(VllmServer):
        def pieces(self, body):
            first, second, *_ = super().pieces(body)
            yield first
            yield second
            yield sse({"error": {"message": "overloaded", "type": "x", "code": 503}})

    async with running(Failing()) as server:
        seen = []
        with pytest.raises(RagmeshError) as caught:
            async for event in make(VllmEngine, server.settings).generate(CHAT):
                seen.append(event)
    assert seen == [Delta(TEXT[0])]
    assert caught.value.reason == "ENGINE_OVERLOADED"


async def test_vllms_load_becomes_gauges_and_an_old_figure_goes(make):
    def gauge(what):
        return METRICS.get_sample_value(f"ragmesh_infer_engine_{what}", {"provider": "watched"})

    async with running(VllmServer()) as server:
        engine = make(VllmEngine, server.settings)
        provider = Provider("watched", engine, Admission(1, 1))
        observer = Observer({"watched": provider}, 60.0)
        await observer.observe()
        assert (gauge("running"), gauge("waiting"), gauge("cache_used")) == (4.0, 2.0, 0.25)
    await observer.observe()
    assert (gauge("running"), gauge("waiting"), gauge("cache_used")) == (None, None, None)
    await observer.start()
    await observer.aclose()


async def test_servers_learn_the_request_id(make):
    set_caller(Caller("t", "s", "request-1"))
    async with running(VllmServer()) as server:
        engine = make(VllmEngine, server.settings)
        _ = [event async for event in engine.generate(CHAT)]
        (asked,) = server.asked
    assert asked.headers["x-request-id"] == "request-1"
    assert asked.headers["accept-encoding"] == "identity"


async def test_nobody_waits_for_a_list_of_models_that_is_only_old(make):
    async with running(VllmServer()) as server:
        engine = make(VllmEngine, server.settings)
        models = await engine.models()
        listed, _ = engine._listing
        engine._listing = (listed - 3600, models)
        server.failures = {}
        server.models = lambda: {"data": [{"id": "other"}]}
        assert await engine.models() is models
        await until(lambda: engine._listing[1] is not models)
        assert [model.name for model in await engine.models()] == ["other"]
        engine._listing = (listed - 3600, models)
    assert await engine.models() is models
    await until(engine._refreshing.done)
    assert await engine.models() is models
