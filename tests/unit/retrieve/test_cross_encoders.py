"""Cross-encoders in torch and in ONNX Runtime, on a tiny one that is made on the spot."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.retrieve.adapters import cross_encoder, onnx_cross_encoder
from services.retrieve.adapters.models import card_languages, folder_digest
from services.retrieve.adapters.onnx_models import kept
from services.runtime.errors import FailedPrecondition
from tests.unit.retrieve.tiny_cross_encoder import QUERY, TEXTS, make

LONG = [*TEXTS, "fox " * 500, "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("models") / "tiny", languages="language: en")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def in_torch(folder):
    model = cross_encoder.Model(str(folder), precision="float32")
    model.load()
    return model


@pytest.fixture(scope="module")
def in_onnx(folder, exports):
    model = onnx_cross_encoder.Model(str(folder), exports)
    model.load()
    return model


def scores(model, query=QUERY, texts=LONG):
    return model.forward(model.pairs(query, texts))


def test_both_say_the_same(in_torch, in_onnx):
    expected = scores(in_torch)
    assert len(set(expected)) == len(LONG)
    assert scores(in_onnx) == pytest.approx(expected, abs=1e-5)


def test_it_is_what_the_library_says(folder, in_torch):
    from sentence_transformers import CrossEncoder

    library = CrossEncoder(str(folder), device="cpu")
    said = library.predict([(QUERY, text) for text in LONG], show_progress_bar=False)
    assert scores(in_torch) == pytest.approx(said.tolist(), abs=1e-5)


@pytest.mark.parametrize("backend", ["in_torch", "in_onnx"])
def test_a_pair_says_the_same_alone(backend, request):
    model = request.getfixturevalue(backend)
    together = scores(model)
    alone = [scores(model, texts=[text])[0] for text in LONG]
    assert alone == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize("backend", ["in_torch", "in_onnx"])
def test_pairs_know_how_long_they_are_and_are_cut(backend, request):
    pairs = request.getfixturevalue(backend).pairs(QUERY, LONG)
    assert [pair.tokens for pair in pairs][-2:] == [64, pairs[-1].tokens]
    assert all(10 < pair.tokens < 64 for pair in pairs[:-2])


def test_in_bfloat16_it_says_about_the_same(folder, in_torch):
    model = cross_encoder.Model(str(folder), precision="bfloat16")
    model.load()
    assert scores(model) == pytest.approx(scores(in_torch), abs=0.1)
    assert scores(model) != pytest.approx(scores(in_torch), abs=1e-5)


def test_int8_is_made_once(folder, exports, in_onnx):
    model = onnx_cross_encoder.Model(str(folder), exports, precision="int8")
    facts = model.load()
    (file,) = exports.glob("*-int8/model.onnx")
    made = file.stat().st_mtime_ns
    again = onnx_cross_encoder.Model(str(folder), exports, precision="int8")
    assert again.load() == facts
    assert file.stat().st_mtime_ns == made
    assert facts.version.endswith("-int8")
    assert scores(model) == pytest.approx(scores(in_onnx), abs=0.2)
    assert scores(model) != pytest.approx(scores(in_onnx), abs=1e-4)
    assert not list(exports.glob("*.part"))


def test_raw_scores_are_brought_between_0_and_1(folder, tmp_path, exports, in_torch):
    raw = shutil.copytree(folder, tmp_path / "raw")
    config = json.loads((raw / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (raw / "config.json").write_text(json.dumps(config))
    from sentence_transformers import CrossEncoder

    said = CrossEncoder(str(raw), device="cpu").predict([(QUERY, TEXTS[0])])
    assert said[0] < 0
    for model in (
        cross_encoder.Model(str(raw), precision="float32"),
        onnx_cross_encoder.Model(str(raw), exports),
    ):
        model.load()
        assert scores(model) == pytest.approx(scores(in_torch), abs=1e-5)


def test_a_folder_with_its_onnx_file_needs_no_torch(folder, tmp_path, exports, in_onnx):
    shipped = shutil.copytree(folder, tmp_path / "shipped")
    (shipped / "model.safetensors").unlink()
    shutil.copytree(next(exports.glob("*-onnx")), shipped / "onnx")
    script = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing them fails
from pathlib import Path
from services.retrieve.adapters.onnx_cross_encoder import Model
model = Model({str(shipped)!r}, Path({str(tmp_path / "none")!r}))
model.load()
print(model.forward(model.pairs({QUERY!r}, {list(TEXTS)!r})))
"""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert json.loads(done.stdout) == pytest.approx(scores(in_onnx, texts=TEXTS), abs=1e-6)
    assert not (tmp_path / "none").exists()


def test_facts(folder, exports, tmp_path):
    for model in (
        cross_encoder.Model(str(folder), precision="float32"),
        onnx_cross_encoder.Model(str(folder), exports),
    ):
        facts = model.load()
        assert (facts.name, facts.owned_by, facts.languages) == ("tiny", "local", ("en",))
        assert facts.id == f"tiny@{folder_digest(folder)}"
        assert facts.max_tokens == 64
        assert (facts.covers("en"), facts.covers("ja"), facts.covers("und")) == (True, False, True)
    for model in (
        cross_encoder.Model(str(folder), languages=("ja",), max_tokens=32),
        onnx_cross_encoder.Model(str(folder), exports, languages=("ja",), max_tokens=32),
    ):
        facts = model.load()
        assert (facts.languages, facts.max_tokens) == (("ja",), 32)
        assert [pair.tokens for pair in model.pairs(QUERY, LONG[-2:-1])] == [32]


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n", ("en",)),
        ("---\nlicense: mit\nlanguage:\n- en\n- 'ja'\n---\n", ("en", "ja")),
        ("---\nlanguage:\n  - ja\ntags:\n  - reranker\n---\n", ("ja",)),
        ("---\nlanguage: [en, zh]\n---\n", ("en", "zh")),
        ("---\nlanguage:\n- multilingual\n---\n", ()),
        ("---\nlicense: mit\n---\nlanguage: en\n", ()),
        ("language: en\n", ()),
        ("", ()),
    ],
)
def test_languages_of_a_card(tmp_path, card, languages):
    (tmp_path / "README.md").write_text(card)
    assert card_languages(tmp_path) == languages


def refused(model, words):
    with pytest.raises(FailedPrecondition, match=words) as caught:
        model.load()
    assert caught.value.reason == "RERANKER_UNREADABLE"


def changed(folder: Path, target: Path, **config) -> Path:
    shutil.copytree(folder, target)
    written = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(written | config))
    return target


def test_models_that_are_refused(folder, tmp_path, exports):
    two = make(tmp_path / "two", labels=2)
    refused(cross_encoder.Model(str(two)), "2 labels")
    refused(onnx_cross_encoder.Model(str(two), tmp_path / "exports"), "2 scores")
    chat = changed(folder, tmp_path / "chat", architectures=["Qwen3ForCausalLM"])
    refused(onnx_cross_encoder.Model(str(chat), exports), "Qwen3ForCausalLM is no sequence")
    tanh = changed(folder, tmp_path / "tanh",
                   sentence_transformers={"activation_fn": "torch.nn.Tanh"})  # fmt: skip
    refused(onnx_cross_encoder.Model(str(tanh), exports), "Tanh")
    broken = changed(folder, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    refused(onnx_cross_encoder.Model(str(broken), exports), "broken")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(cross_encoder.Model(str(empty)), "cannot load it")
    refused(onnx_cross_encoder.Model(str(empty), exports), "missing")
    refused(cross_encoder.Model(str(broken)), "cannot load it")
    torn = changed(folder, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:999])
    refused(cross_encoder.Model(str(torn)), "cannot load it")
    refused(onnx_cross_encoder.Model(str(torn), exports), "cannot run it")
    (torn / "model.onnx").write_bytes(b"no model")
    refused(onnx_cross_encoder.Model(str(torn), exports), "cannot run it")
    assert not list(exports.glob("torn*"))


def test_a_device_that_is_not_there(folder, exports):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    refused(cross_encoder.Model(str(folder), device="cuda"), "cannot load it")
    with pytest.raises(FailedPrecondition, match="DEVICE_MISSING"):
        onnx_cross_encoder.Model(str(folder), exports, device="cuda").load()


@pytest.mark.parametrize(
    "make_model",
    [
        lambda: cross_encoder.Model(""),
        lambda: onnx_cross_encoder.Model("", Path("unused")),
        lambda: cross_encoder.Model("x", precision="int8"),
        lambda: onnx_cross_encoder.Model("x", Path("unused"), precision="bfloat16"),
    ],
)
def test_settings_that_are_refused(make_model):
    with pytest.raises(FailedPrecondition, match="RERANKER_UNREADABLE"):
        make_model()


def test_what_is_kept_is_whole(tmp_path):
    target = tmp_path / "kept"

    def fail(into):
        (into / "model.onnx").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        kept(target, fail)
    assert list(tmp_path.iterdir()) == []

    def lose(into):
        target.mkdir()  # another process was faster
        (target / "model.onnx").write_text("theirs")
        (into / "model.onnx").write_text("ours")

    assert kept(target, lose).read_text() == "theirs"
    assert kept(target, fail).read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
