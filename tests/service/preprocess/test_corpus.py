"""The shared test documents through the real service: nasty files, and answers in their chunks."""

import csv
import json
from pathlib import Path

import grpc

from services.runtime.status import error_from_rpc
from services.text.normalize import normalize
from tests.service.preprocess.client import Answer, process
from tests.service.preprocess.conftest import Serve

REFUSALS = {
    "EMPTY_DOCUMENT",
    "UNREADABLE_DOCUMENT",
    "ENCRYPTED_DOCUMENT",
    "UNSUPPORTED_FORMAT",
    "DOCUMENT_TOO_LARGE",
    "PARSE_LIMIT",
}
ENCRYPTED = {"aes-128.pdf", "aes-256-r6.pdf", "rc4-40.pdf"}


async def test_nasty_files_end_as_expected(serve: Serve, shared_data: Path) -> None:
    docs = shared_data / "docs"
    with (docs / "expected.tsv").open(encoding="utf-8") as file:
        expected = {row["file"]: row["expected"] for row in csv.DictReader(file, delimiter="\t")}
    wrong: list[str] = []
    async with serve(parse_seconds=20.0, parse_workers=2) as stub:
        for name, verdict in expected.items():
            path = docs / name
            try:
                answer = await process(stub, path.name, path.read_bytes())
            except grpc.aio.AioRpcError as refusal:
                error = error_from_rpc(refusal)
                assert error.reason in REFUSALS, (name, error)
                assert path.name in error.message
                if path.name in ENCRYPTED or "_protected_pass" in path.name:
                    assert error.reason == "ENCRYPTED_DOCUMENT", name
                outcome = "reject"
            else:
                assert answer.chunks
                outcome = "accept"
            if verdict not in (outcome, "either"):
                wrong.append(f"{name}: {outcome}, not {verdict}")
    assert not wrong


async def test_every_encoding_of_one_text_reads_the_same(serve: Serve, shared_data: Path) -> None:
    made = shared_data / "docs" / "made"
    texts: dict[str, str] = {}
    async with serve() as stub:
        for path in sorted(made.glob("ja_*.txt")):
            answer = await process(stub, path.name, path.read_bytes())
            assert answer.document.language == "ja", path.name
            texts[path.name] = "".join(chunk.normalized_text for chunk in answer.chunks)
    broken = squeezed(texts.pop("ja_sjis_broken.txt"))
    # It has a line more, with characters that the older encodings do not have.
    decomposed = squeezed(texts.pop("ja_nfd_halfwidth.txt"))
    distinct = {squeezed(text) for text in texts.values()}
    assert len(distinct) == 1
    (text,) = distinct
    assert broken[-2_000:] == text[-2_000:]
    assert decomposed.startswith(text)


async def test_answers_stand_in_chunks_on_their_pages(serve: Serve, shared_data: Path) -> None:
    made = shared_data / "docs" / "made"
    lines = (made / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    answers: dict[str, Answer] = {}
    async with serve() as stub:
        for name in {question["file"] for question in questions}:
            if Path(name).suffix in (".docx", ".html", ".md", ".pdf"):
                answers[name] = await process(stub, name, (made / name).read_bytes())
    assert len(answers) == 4
    assert answers["ja_report.pdf"].document.pages == 10
    missing: list[str] = []
    for question in questions:
        if question["file"] not in answers:
            continue  # a format that comes later
        chunks = answers[question["file"]].chunks
        for wanted in question["answers"]:
            hits = [chunk for chunk in chunks if squeezed(wanted) in squeezed(chunk.text)]
            if not hits:
                missing.append(f"{question['id']}: {wanted}")
            elif "pages" in question:
                # Pages of the file on which the answer stands; in chunks it may be cut in two.
                assert {chunk.page for chunk in hits} <= set(question["pages"]), question["id"]
    assert not missing


def squeezed(text: str) -> str:
    return "".join(normalize(text).split())
