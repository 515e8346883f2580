"""An engine that is not in the mesh: its file and one line, and the whole service runs with it."""

from __future__ import annotations

from ragmesh.infer.v1 import infer_pb2 as pb
from ragmesh.infer.v1 import infer_pb2_grpc
from ragmesh.type.v1 import chat_pb2
from services.infer.__main__ import build
from services.infer.adapters import REGISTRY
from services.infer.settings import InferSettings
from services.runtime.channel import connect
from services.runtime.server import serving
from tests.service.runtime.ports import free_base

LINE = {"imaginary": "tests.contract.infer.imaginary:ImaginaryEngine"}


async def test_one_file_and_one_line_bring_an_engine(monkeypatch):
    monkeypatch.setenv("RAGMESH_IMAGINARY_WORD", "はい")
    monkeypatch.setenv("RAGMESH_MODEL_BACKEND", "imaginary")
    settings = InferSettings(grpc_base=free_base("infer"), metrics_base=0, drain_delay=0)
    service = build(settings, {**REGISTRY, **LINE})
    async with serving(service, settings) as address, connect(address) as channel:
        stub = infer_pb2_grpc.InferServiceStub(channel)
        part = chat_pb2.ContentPart(text="hi")
        said = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[part])
        events = [e async for e in stub.Generate(pb.GenerateRequest(messages=[said]))]
        assert events[0].started.model == "imaginary/words"
        assert "".join(event.delta.text for event in events) == "はいはいはい"
        listed = await stub.ListModels(pb.ListModelsRequest())
        assert {"default", "imaginary/words"} <= {model.id for model in listed.models}
        facts = await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert facts.backends == {"model_backend": "imaginary"}
