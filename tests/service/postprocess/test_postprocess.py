"""PostprocessService over a real server and a real stub."""

import grpc
import pytest

from ragmesh.postprocess.v1 import postprocess_pb2 as pb
from ragmesh.postprocess.v1 import postprocess_pb2_grpc
from ragmesh.type.v1 import passage_pb2
from services.postprocess.servicer import PostprocessServicer
from services.postprocess.settings import PostprocessSettings
from services.runtime.status import error_from_rpc
from services.runtime.testing import serve_for_test

PASSAGES = (
    passage_pb2.Passage(
        marker=1,
        document_id="ops",
        chunk_id="ops-0",
        text="The gateway answers on port 8000. It is a FastAPI application.",
        source="ops.pdf",
        title="Operations",
        page=4,
        heading="REST > Ports",
    ),
    passage_pb2.Passage(marker=2, document_id="ja", text="推論サービスはポート50053です。"),
)


@pytest.fixture
async def stub():
    settings = PostprocessSettings(max_answer_characters=1_000)
    add = postprocess_pb2_grpc.add_PostprocessServiceServicer_to_server
    async with serve_for_test([(add, PostprocessServicer(settings))]) as channel:
        yield postprocess_pb2_grpc.PostprocessServiceStub(channel)


async def test_an_answer_is_finished(stub):
    answer = await stub.ProcessAnswer(
        pb.ProcessAnswerRequest(
            text="推論はポート50053です。【2】 **Port 8000** is the gateway's [1][7].",
            passages=PASSAGES,
            query="Which ports?",
            format=pb.FORMAT_PLAIN,
        )
    )
    assert answer.text == "推論はポート50053です。[2] Port 8000 is the gateway's [1]."
    second, first = answer.citations
    assert (second.marker, second.document_id, second.HasField("page")) == (2, "ja", False)
    assert (first.page, first.heading, first.source) == (4, "REST > Ports", "ops.pdf")
    assert (first.chunk_id, first.title) == ("ops-0", "Operations")
    assert first.quote == "The gateway answers on port 8000."
    assert 0.3 < answer.confidence <= 1
    assert [list(s.markers) for s in answer.sentences] == [[2], [1]]


async def test_semantic_support_from_a_first_call_is_used(stub):
    request = pb.ProcessAnswerRequest(text="Entry at 8000. [1]", passages=PASSAGES)
    first = await stub.ProcessAnswer(request)
    rows = [pb.SupportRow(support=[1.0, 0.0]) for _ in first.sentences]
    request.semantic_support.extend(rows)
    assert (await stub.ProcessAnswer(request)).confidence > first.confidence


async def test_long_input_is_worked_on_beside_the_loop(stub):
    long = passage_pb2.Passage(marker=1, text="The gateway answers on port 8000. " * 3_000)
    answer = await stub.ProcessAnswer(
        pb.ProcessAnswerRequest(text="The gateway answers on port 8000. [1]", passages=[long])
    )
    assert answer.confidence == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.ProcessAnswerRequest(text="x" * 1_001), "ANSWER_TOO_LONG"),
        (pb.ProcessAnswerRequest.FromString(b"\x20\x09"), "FORMAT_UNKNOWN"),
        (
            pb.ProcessAnswerRequest(
                text="x", passages=PASSAGES, semantic_support=[pb.SupportRow(support=[1.0])]
            ),
            "SUPPORT_MALFORMED",
        ),
    ],
)
async def test_refusals(stub, request_, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ProcessAnswer(request_)
    error = error_from_rpc(caught.value)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", reason)


async def test_facts(stub):
    facts = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert facts.version
    assert facts.backends == {"attribution": "lexical"}
