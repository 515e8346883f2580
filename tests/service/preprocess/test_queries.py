"""PlanQuery over gRPC."""

import grpc
import pytest

from ragmesh.preprocess.v1 import preprocess_pb2 as pb
from ragmesh.type.v1 import chat_pb2
from services.runtime.status import error_from_rpc
from tests.service.preprocess.conftest import Serve


def said(role: chat_pb2.Role, *texts: str) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(
        role=role, content=[chat_pb2.ContentPart(text=text) for text in texts]
    )


HISTORY = [
    said(chat_pb2.ROLE_SYSTEM, "Be brief."),
    said(chat_pb2.ROLE_USER, "vLLMとは何ですか?"),
    said(chat_pb2.ROLE_ASSISTANT, "推論エンジンです。"),
]


async def test_plans(serve: Serve) -> None:
    async with serve() as stub:
        alone = await stub.PlanQuery(pb.PlanQueryRequest(query=" Ｐｏｒｔ? "))
        completed = await stub.PlanQuery(pb.PlanQueryRequest(query="その上限は?", history=HISTORY))
        rewrite = await stub.PlanQuery(pb.PlanQueryRequest(query="なぜ?", history=HISTORY))
    assert (alone.standalone.query, alone.standalone.normalized_query) == ("Ｐｏｒｔ?", "Port?")
    assert (completed.standalone.query, completed.standalone.rewritten) == ("vLLMの上限は?", True)
    assert rewrite.WhichOneof("plan") == "rewrite"
    assert rewrite.rewrite.query == "なぜ?"
    assert list(rewrite.rewrite.history) == HISTORY[1:]
    assert rewrite.rewrite.fallback.query == "vLLMとは何ですか? なぜ?"
    assert rewrite.rewrite.language == "ja"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.PlanQueryRequest(), "QUERY_EMPTY"),
        (pb.PlanQueryRequest(query="x" * 8_001), "QUERY_TOO_LONG"),
        (pb.PlanQueryRequest(query="x" * 11, max_characters=10), "QUERY_TOO_LONG"),
    ],
)
async def test_refusals_name_the_field(
    serve: Serve, request_: pb.PlanQueryRequest, reason: str
) -> None:
    async with serve() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PlanQuery(request_)
    error = error_from_rpc(caught.value)
    assert (error.reason, error.field) == (reason, "query")
