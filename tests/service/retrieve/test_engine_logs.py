"""What the engine's process writes: the same lines as every process, without what users wrote."""

import json

import pytest

from services.retrieve.adapters.edge.client import EdgeStore
from services.runtime.errors import Internal


async def test_a_failure_in_the_engine_is_a_json_line_without_its_text(tmp_path, capfd):
    store = EdgeStore("", tmp_path)
    await store.start()
    try:
        with pytest.raises(Internal) as caught:
            await store._call("no_such_method", "a user's secret")
    finally:
        await store.aclose()
    assert caught.value.reason == "ENGINE_FAILED"
    written = capfd.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    [failure] = [line for line in lines if line["level"] == "error"]
    assert failure["service"] == "retrieve"
    assert failure["error"]["type"] == "builtins.ValueError"
    assert "secret" not in written
    assert "unknown method was called" not in written
