"""`ragmesh ask`: a question, its answer as it comes, and what it rests on."""

import json
from typing import Annotated, Any

import typer

from cli.answers import print_answer, say_rerank
from cli.api import Api, ApiError
from cli.options import JsonOption, LangOption, Session, command


def ask(
    question: Annotated[str, typer.Argument(help="The question, in any language.")],
    *,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Where to look.")
    ] = "default",
    model: Annotated[str | None, typer.Option(help="An alias or provider/model.")] = None,
    mode: Annotated[str | None, typer.Option(help="hybrid, dense or sparse.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="How many passages to read.")] = None,
    session_id: Annotated[
        str | None, typer.Option("--session", help="The conversation that this continues.")
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let the cross-encoder order the best again.")
    ] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Ask a question; the answer appears as it is made, its citations beneath.

    Examples:

      ragmesh ask "Where is the admin token written?" -c samples

      ragmesh ask "トークンはどこに書かれますか。" -c samples --json
    """
    body: dict[str, Any] = {"query": question, "collection": collection}
    given = {"model": model, "mode": mode, "top_k": top_k, "session_id": session_id}
    body |= {name: value for name, value in given.items() if value is not None}
    if rerank:
        body["rerank"] = True
    with command(as_json, lang) as session, Api(session.settings) as api:
        if as_json:
            session.screen.json(api.call_again("POST", "/v1/query", json=body))
        else:
            _stream(session, api, body)


def _stream(session: Session, api: Api, body: dict[str, Any]) -> None:
    """Print the deltas as they come; the last event has the answer that counts."""
    screen, shown = session.screen, ""
    answer: dict[str, Any] | None = None
    for name, data in api.events("/v1/query", body | {"stream": True}):
        event = json.loads(data)
        if "error" in event:
            error = event["error"]
            raise ApiError(500, str(error["message"]), str(error.get("code") or "error"))
        if name == "delta":
            piece = str(event["text"])
            shown += piece
            screen.out.print(piece, end="")
        elif name == "done":
            answer = event
    screen.line()
    if answer is None:
        raise ApiError(0, "The answer broke off.", "broken_off")
    if answer["answer"].strip() != shown.strip():
        # Checked as a whole, it was changed: what stands above was a draft.
        screen.line(answer["answer"])
    print_answer(screen, answer)
    say_rerank(screen, answer)
