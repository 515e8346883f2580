"""`ragmesh up --demo`: the sample documents, and one question about them in each language."""

import json
from pathlib import Path
from typing import Any

from cli.answers import print_answer
from cli.api import Api, ApiError
from cli.console import Failure, Screen
from cli.documents import find_documents, upload
from cli.settings import CommandSettings

COLLECTION = "samples"


def run_demo(settings: CommandSettings, screen: Screen) -> dict[str, Any]:
    """Ingest what is missing of the samples, ask, print; answers what was printed.

    Raises:
        Failure: there are no samples here, or the mesh refused.
    """
    folder = settings.samples
    questions = _questions(folder)
    with Api(settings) as api:
        ensure_collection(api, COLLECTION)
        # One call: it costs one look-up when nothing has changed.
        results = upload(api, COLLECTION, find_documents([folder], recursive=False))
        counts = {"indexed": 0, "replaced": 0, "unchanged": 0}
        for result in results:
            counts[result["status"]] = counts.get(result["status"], 0) + 1
        screen.say(
            "demo.documents",
            collection=COLLECTION,
            indexed=counts["indexed"] + counts["replaced"],
            unchanged=counts["unchanged"],
        )
        answers = []
        for question in questions:
            body = {"query": question["question"], "collection": COLLECTION}
            answer = api.call_again("POST", "/v1/query", json=body)
            screen.line()
            screen.line(f"? {question['question']}", style="bold")
            screen.line(answer["answer"])
            print_answer(screen, answer)
            answers.append({"question": question["question"], **answer})
    screen.line()
    return {"collection": COLLECTION, "documents": counts, "answers": answers}


def ensure_collection(api: Api, name: str) -> None:
    """Make the collection unless it exists. Raises ApiError."""
    try:
        api.call_again("POST", "/v1/collections", json={"name": name})
    except ApiError as error:
        if error.http_status != 409:
            raise


def _questions(folder: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder / "questions.json").read_bytes())
    except OSError as error:
        raise Failure(
            f"The sample documents are not in {folder}: they come with the repository, not with "
            "the package. `ragmesh up` without --demo starts the mesh.",
            code="no_samples",
        ) from error
    return [entry for entry in entries if entry.get("demo")]
