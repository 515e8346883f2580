"""Encoders of this process: prompts, pooling, precision, graphs."""

import sys

import numpy as np
import pytest

from services.retrieve.adapters import graphs, onnx, openvino, sentence_transformers
from services.retrieve.adapters.model_folder import ModelFolder, Prompts
from services.runtime.errors import FailedPrecondition
from tests.unit.retrieve.tiny_cross_encoder import TEXTS
from tests.unit.retrieve.tiny_encoder import E5, RURI, make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("tiny") / "tiny", prompts=E5)


def vectors(model, texts=TEXTS, *, query=False):
    model.load()
    tokens = model.tokenize(list(texts), query=query, truncate=True)
    return model.forward([one.ids for one in tokens])


@pytest.mark.parametrize(("prompts", "question", "passage"), [
    (E5, "query: ", "passage: "),
    (RURI, "検索クエリ: ", "検索文書: "),
    ({}, "", ""),
])  # fmt: skip
def test_prompts_come_from_the_model(tmp_path, prompts, question, passage):
    folder = ModelFolder.locate(str(make(tmp_path / "m", prompts=prompts)))
    assert folder.prompts(Prompts()) == (question, passage)
    assert folder.prompts(Prompts("q ", "")) == ("q ", "")


def test_runtimes_agree_and_precision_is_told(folder, tmp_path):
    torch = sentence_transformers.Model(str(folder), precision="float32")
    exact = vectors(torch)
    for runtime in (onnx.Model, openvino.Model):
        model = runtime(str(folder), precision="float32", data=tmp_path)
        assert np.allclose(vectors(model), exact, atol=1e-4)
        assert np.allclose(vectors(model, query=True), vectors(torch, query=True), atol=1e-4)
        assert model.load().id == torch.load().id
    assert torch.load().precision == "float32"


def test_int8_is_another_encoder(folder, tmp_path):
    exact = onnx.Model(str(folder), precision="float32", data=tmp_path)
    small = onnx.Model(str(folder), precision="int8", data=tmp_path)
    assert (vectors(exact) * vectors(small)).sum(axis=1).min() > 0.9
    assert small.load().id == f"{exact.load().id}-int8"
    assert small.load().precision == "int8"


@pytest.mark.parametrize(("runtime", "precision"), [
    (onnx.Model, "bfloat16"), (openvino.Model, "int8"), (sentence_transformers.Model, "int8"),
])  # fmt: skip
def test_a_precision_that_a_runtime_lacks(folder, tmp_path, runtime, precision):
    with pytest.raises(FailedPrecondition) as caught:
        runtime(str(folder), precision=precision, data=tmp_path).load()
    assert caught.value.reason == "PRECISION_UNSUPPORTED"


def test_a_graph_is_exported_once_and_whole(folder, tmp_path, monkeypatch):
    found = ModelFolder.locate(str(folder))
    path = graphs.graph(found, tmp_path)
    assert path.is_file()
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert graphs.graph(found, tmp_path) == path
    assert not list(tmp_path.rglob("*.part"))


def test_a_graph_of_token_vectors_is_pooled_as_torch_does(tmp_path):
    """As the hub has them: ``onnx/model.onnx`` with the last hidden state."""
    import torch
    from transformers import AutoModel

    for pooling in ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"):
        folder = make(tmp_path / pooling, pooling=pooling)
        exact = vectors(sentence_transformers.Model(str(folder), precision="float32"))
        plain = AutoModel.from_pretrained(folder).eval()
        model = sentence_transformers.Model(str(folder), precision="float32")
        model.load()
        ids, mask = model.padded(
            [one.ids for one in model.tokenize(list(TEXTS), query=False, truncate=True)]
        )
        with torch.inference_mode():
            state = plain(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).last_hidden_state.numpy()
        found = ModelFolder.locate(str(folder))
        assert graphs.output(["last_hidden_state"], found) == (0, False)
        assert np.allclose(graphs.pooled(state, mask, found.pooling), exact, atol=1e-4)


def test_a_card_that_says_no_languages(folder):
    assert ModelFolder.locate(str(folder)).languages == ()


def test_neither_folder_nor_hub(tmp_path):
    with pytest.raises(FailedPrecondition) as caught:
        ModelFolder.locate("nobody/no-such-model-anywhere")
    assert caught.value.reason == "ENCODER_UNREADABLE"
