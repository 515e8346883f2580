"""What Triton's adapter does beyond the engine contract: two back-ends, statuses, its models."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar

import grpc
import pytest

from services.infer.adapters.triton import MEANINGS, TritonEngine, error_of
from services.infer.ports import (
    Delta,
    Finish,
    FinishReason,
    GenerateRequest,
    Role,
    Sampling,
    Usage,
    text_message,
)
from services.runtime.errors import InvalidArgument, Unimplemented
from tests.contract.infer import rig
from tests.contract.infer.servers.triton import (
    MODEL,
    AccumulatingServer,
    LlmApiServer,
    TensorRtServer,
    VllmBackend,
    served,
)

CHAT = GenerateRequest(
    model=MODEL,
    messages=(text_message(Role.SYSTEM, "Be brief."), text_message(Role.USER, "hi")),
    timeout=5.0,
)


async def events(engine: TritonEngine, request: GenerateRequest = CHAT) -> list:
    async with aclosing(engine.generate(request)) as stream:
        return [event async for event in stream]


def test_every_status_has_a_meaning():
    assert MEANINGS.keys() == set(grpc.StatusCode)


async def test_tensorrts_parameters_are_tensors_of_the_models_shape():
    async with served(TensorRtServer)() as server:
        engine = TritonEngine.from_settings(server.settings)
        sampling = Sampling(temperature=0.5, top_k=3, max_tokens=9, stop=("a", "b"), seed=1 << 40)
        await events(engine, replace(CHAT, sampling=sampling))
        (given,) = server.asked
        await engine.aclose()
    assert list(given["max_tokens"].shape) == [1, 1]
    assert list(given["max_tokens"].contents.int_contents) == [9]
    assert list(given["stop_words"].shape) == [1, 2]
    assert list(given["stop_words"].contents.bytes_contents) == [b"a", b"b"]
    assert list(given["random_seed"].contents.uint64_contents) == [1 << 40]
    (text,) = given["text_input"].contents.bytes_contents
    assert text == b"system: Be brief.\nuser: hi\nassistant:"

    assert "seed" not in given


async def test_a_temperature_alone_is_no_greedy_choice():
    async with served(TensorRtServer)() as server:
        engine = TritonEngine.from_settings(server.settings)
        await events(engine, replace(CHAT, sampling=Sampling(temperature=0.5)))
        await events(engine, replace(CHAT, sampling=Sampling(temperature=0.0)))
        await events(engine)
        await engine.aclose()
    warm, cold, silent = server.asked
    assert list(warm["top_p"].contents.fp32_contents) == [1.0]
    assert "top_p" not in cold.keys() | silent.keys()


async def test_the_llm_apis_tensors_have_names_of_their_own():
    async with served(LlmApiServer)() as server:
        engine = TritonEngine.from_settings(server.settings)
        sampling = Sampling(temperature=0.5, top_k=3, max_tokens=9, stop=("§",), seed=1 << 40)
        *deltas, finish, _ = await events(engine, replace(CHAT, sampling=sampling))
        await engine.aclose()
    (given,) = server.asked
    assert list(given["text_input"].shape) == [1]
    assert list(given["streaming"].contents.bool_contents) == [True]
    assert list(given["sampling_param_max_tokens"].contents.int_contents) == [9]
    assert list(given["sampling_param_seed"].contents.uint64_contents) == [1 << 40]
    assert "stop" not in given
    assert len(deltas) > 1
    assert "".join(one.text for one in deltas) == server.text
    assert finish == Finish(FinishReason.LENGTH)


@pytest.mark.parametrize("kind", [AccumulatingServer, LlmApiServer])
async def test_a_text_that_comes_whole_each_time_is_said_once(kind):
    async with served(kind)() as server:
        engine = TritonEngine.from_settings(server.settings)
        server.behave(rig.BYTES)
        *deltas, _, _ = await events(engine)
        *cut, _, _ = await events(engine, replace(CHAT, sampling=Sampling(stop=("quick",))))
        await engine.aclose()
    assert "".join(one.text for one in deltas) == server.text
    assert not any("\ufffd" in one.text for one in deltas)
    assert "".join(one.text for one in cut) == "こんにちは、世界。 The "


async def test_what_a_model_has_no_tensor_for_is_refused_by_name():
    class Plain(TensorRtServer):
        inputs: ClassVar = {
            name: one for name, one in TensorRtServer.inputs.items() if "seed" not in name
        }

    async with served(Plain)() as server:
        engine = TritonEngine.from_settings(server.settings)
        with pytest.raises(InvalidArgument) as caught:
            await events(engine, replace(CHAT, sampling=Sampling(seed=1)))
        await engine.aclose()
    assert (caught.value.reason, caught.value.field) == ("PARAMETER_UNSUPPORTED", "seed")


async def test_vllms_back_end_takes_json_and_counts():
    async with served(VllmBackend)() as server:
        engine = TritonEngine.from_settings(server.settings)
        sampling = Sampling(temperature=0.5, max_tokens=9, stop=("§",))
        *deltas, finish, usage = await events(engine, replace(CHAT, sampling=sampling))
        assert server.parameters == {"max_tokens": 9, "temperature": 0.5, "stop": ["§"]}
        await engine.aclose()
    assert "".join(one.text for one in deltas if isinstance(one, Delta)) == server.text
    assert finish == Finish(FinishReason.LENGTH)
    assert usage == Usage(7, 3 * len(deltas))


async def test_vllms_words_for_too_long_a_prompt_have_the_numbers():
    async with served(VllmBackend)() as server:
        engine = TritonEngine.from_settings(server.settings)
        server.behave(rig.CONTEXT)
        with pytest.raises(InvalidArgument) as caught:
            await events(engine)
        await engine.aclose()
    assert caught.value.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert "513" in caught.value.message
    assert "512" in caught.value.message


async def test_a_stop_text_that_the_back_end_lets_through_ends_the_answer():
    async with served(TensorRtServer)() as server:
        engine = TritonEngine.from_settings(server.settings)
        *deltas, finish, _ = await events(
            engine, replace(CHAT, sampling=Sampling(stop=("quick brown",)))
        )
        await engine.aclose()
    assert "".join(one.text for one in deltas) == "こんにちは、世界。 The "
    assert finish == Finish(FinishReason.STOP)


async def test_models_are_loaded_and_unloaded_but_not_fetched():
    async with served(TensorRtServer)() as server:
        engine = TritonEngine.from_settings(server.settings)
        await engine.load("other")
        assert server.loaded == {"other"}
        await engine.unload("other")
        assert server.loaded == set()
        with pytest.raises(Unimplemented):
            engine.pull("other")
        await engine.aclose()


def test_an_error_in_a_stream_without_known_words_is_the_servers_fault():
    error = error_of(None, "something broke")
    assert (error.code, error.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
