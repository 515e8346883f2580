"""InferService over a real server and a real stub."""

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from prometheus_client import REGISTRY as METRICS

from ragmesh.infer.v1 import infer_pb2 as pb
from ragmesh.infer.v1 import infer_pb2_grpc
from ragmesh.type.v1 import chat_pb2, passage_pb2
from services.infer.adapters.scripted import Script, ScriptedEngine
from services.infer.admission import Admission
from services.infer.core import Inference, Provider
from services.infer.providers import build_provider
from services.infer.servicer import InferServicer
from services.infer.settings import InferSettings
from services.runtime.status import error_from_rpc
from services.runtime.testing import TEST_CALLER, serve_for_test
from tests.contract.infer import rig
from tests.contract.infer.scripted_http import running
from tests.contract.infer.servers.openai import TEXT
from tests.contract.infer.servers.vllm import VllmServer
from tests.until import until


def said(text):
    part = chat_pb2.ContentPart(text=text)
    return chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[part])


def asked(**fields):
    directives = fields.pop("directives", None)
    request = pb.GenerateRequest(messages=[said("hi")], stream=True, **fields)
    if directives:
        request.extra.CopyFrom(ParseDict({"scripted": directives}, Struct()))
    return request


class Remembering(ScriptedEngine):
    """Knows on whose behalf it was asked."""

    def __init__(self, script):
        super().__init__(script)
        self.tenants = set()

    def generate(self, request):
        self.tenants.add(request.tenant)
        return super().generate(request)


@pytest.fixture
async def mesh():
    """A scripted default, the extractive engine and a server of OpenAI's protocol."""
    engine = Remembering(Script("One two three"))
    async with running(VllmServer()) as server:
        inference = Inference(
            {
                "scripted": Provider("scripted", engine, Admission(2, 0)),
                "extractive": build_provider("extractive", InferSettings()),
                "vllm": build_provider("vllm", InferSettings(), server.settings),
            }
        )
        add = infer_pb2_grpc.add_InferServiceServicer_to_server
        async with serve_for_test([(add, InferServicer(inference))]) as channel:
            yield infer_pb2_grpc.InferServiceStub(channel), engine, server
        await inference.aclose()


async def test_the_events_of_a_generation(mesh):
    stub, _, _ = mesh
    events = [event async for event in stub.Generate(asked())]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", "delta", "delta", "delta", "finish", "usage"]
    assert events[0].started == pb.Started(model="scripted/script", alias="default")
    assert "".join(event.delta.text for event in events) == "One two three"
    assert events[-2].finish.reason == pb.FINISH_REASON_STOP
    assert events[-1].usage.estimated


async def test_the_extractive_engine_answers_from_passages(mesh):
    stub, _, _ = mesh
    passage = passage_pb2.Passage(marker=3, text="推論サービスはポート50053です。", language="ja")
    request = pb.GenerateRequest(
        model="extractive/sentences",
        task=pb.TASK_ANSWER,
        messages=[said("推論サービスのポートは？")],
        passages=[passage],
    )
    events = [event async for event in stub.Generate(request)]
    assert events[1].delta.text == "推論サービスはポート50053です。[3]"
    request.messages[0].content[0].text = "モナリザの作者は誰ですか"
    events = [event async for event in stub.Generate(request)]
    assert events[-2].finish.unanswered


async def test_a_server_behind_the_mesh_answers(mesh):
    stub, _, server = mesh
    events = [event async for event in stub.Generate(asked(model="vllm/tiny"))]
    assert "".join(event.delta.text for event in events) == "".join(TEXT)
    assert (events[-1].usage.completion_tokens, events[-1].usage.estimated) == (15, False)
    assert server.generations[0]["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (pb.GenerateRequest(), "INVALID_ARGUMENT", "MESSAGES_EMPTY", "messages"),
        (
            pb.GenerateRequest(messages=[chat_pb2.ChatMessage()]),
            "INVALID_ARGUMENT",
            "PARAMETER_INVALID",
            "messages[0].role",
        ),
        (asked(model="gpt-9"), "NOT_FOUND", "MODEL_NOT_FOUND", "model"),
        (asked(model="vllm/other"), "NOT_FOUND", "MODEL_NOT_FOUND", "model"),
        (
            asked(sampling=pb.Sampling(temperature=3.0)),
            "INVALID_ARGUMENT",
            "PARAMETER_INVALID",
            "temperature",
        ),
        (
            asked(model="extractive/sentences", n=2),
            "INVALID_ARGUMENT",
            "PARAMETER_UNSUPPORTED",
            "n",
        ),
        (asked(task=99), "INVALID_ARGUMENT", "PARAMETER_INVALID", "task"),
    ],
)
async def test_refusals(mesh, request_, code, reason, field):
    stub, _, _ = mesh
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [event async for event in stub.Generate(request_)]
    error = error_from_rpc(caught.value)
    assert (error.code, error.reason, error.field) == (code, reason, field)


async def test_a_failure_after_a_delta_is_a_rich_status(mesh):
    stub, _, _ = mesh
    call = stub.Generate(asked(directives={"mode": "cut", "after": 2, "retry_after": 4}))
    seen = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for event in call:
            seen.append(event.delta.text)
    assert seen == ["", "One", " two"]
    error = error_from_rpc(caught.value)
    assert (error.reason, error.retry_after) == ("ENGINE_UNAVAILABLE", 4.0)


async def test_a_cancelled_call_aborts_the_engine(mesh):
    stub, engine, server = mesh
    before = _count("ragmesh_infer_aborted_total", provider="scripted")
    call = stub.Generate(asked(directives={"mode": "hang"}))
    assert (await call.read()).HasField("started")
    assert (await call.read()).delta.text == "One"
    call.cancel()
    await until(lambda: engine.aborted == 1)
    await until(lambda: _count("ragmesh_infer_aborted_total", provider="scripted") == before + 1)
    assert _count("ragmesh_infer_in_flight", provider="scripted") == 0

    server.behave(rig.STALL)
    call = stub.Generate(asked(model="vllm/tiny"))
    await until(lambda: server.running == 1)
    call.cancel()
    await until(lambda: server.running == 0 and server.aborted == 1)


async def test_the_callers_deadline_ends_the_engines_work(mesh):
    stub, engine, _ = mesh
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Generate(asked(directives={"mode": "hang"}), timeout=0.2):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: engine.started == engine.finished + engine.aborted == 1)


async def test_overload_is_shed_with_a_delay(mesh):
    stub, engine, _ = mesh
    calls = [stub.Generate(asked(directives={"mode": "hang"})) for _ in range(2)]
    await until(lambda: engine.started == 2)
    assert engine.tenants == {TEST_CALLER.tenant}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [event async for event in stub.Generate(asked())]
    error = error_from_rpc(caught.value)
    assert (error.code, error.reason, error.retry_after) == ("UNAVAILABLE", "ENGINE_OVERLOADED", 1)
    for call in calls:
        call.cancel()
    await until(lambda: engine.aborted == 2)


async def test_models_and_facts(mesh):
    stub, _, _ = mesh
    listed = {m.id: m for m in (await stub.ListModels(pb.ListModelsRequest())).models}
    assert listed["default"].target == "scripted/script"
    assert listed["vllm/tiny"].context_length == 512
    assert not listed["extractive/sentences"].capabilities.tools
    vllm = listed["vllm/tiny"].capabilities
    assert (list(vllm.guides), vllm.counts_tokens) == (["choice", "grammar", "regex"], True)
    facts = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert facts.backends == {"model_backend": "scripted"}
    assert facts.available


async def test_outcomes_are_counted(mesh):
    stub, _, _ = mesh
    before = _count("ragmesh_infer_requests_total", provider="scripted", outcome="ok")
    tokens = _count("ragmesh_infer_tokens_total", provider="scripted", kind="completion")
    _ = [event async for event in stub.Generate(asked())]
    await until(
        lambda: _count("ragmesh_infer_requests_total", provider="scripted", outcome="ok") > before
    )
    assert _count("ragmesh_infer_tokens_total", provider="scripted", kind="completion") > tokens


def _count(name, **labels):
    return METRICS.get_sample_value(name, labels) or 0.0
