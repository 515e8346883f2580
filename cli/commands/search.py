"""`ragmesh search`: the passages themselves."""

from typing import Annotated, Any

import typer

from cli.answers import say_rerank
from cli.api import Api
from cli.options import JsonOption, LangOption, command

_LONGEST_TEXT = 240


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in any language.")],
    *,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Where to look.")
    ] = "default",
    mode: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    top_k: Annotated[int, typer.Option(min=1, help="How many hits.")] = 5,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let the cross-encoder order the best again.")
    ] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Search a collection and show the best passages.

    Example:

      ragmesh search "admin token" -c samples --top-k 3
    """
    body: dict[str, Any] = {
        "query": query,
        "collection": collection,
        "mode": mode,
        "top_k": top_k,
    }
    if rerank:
        body["rerank"] = True
    with command(as_json, lang) as session, Api(session.settings) as api:
        answer = api.call_again("POST", "/v1/search", json=body)
        session.screen.json(answer)
        say_rerank(session.screen, answer)
        if not answer["hits"]:
            session.screen.say("search.none")
        for number, hit in enumerate(answer["hits"], start=1):
            page = session.screen.text("ask.page", page=hit["page"]) if hit.get("page") else ""
            place = ", ".join(filter(None, (hit["source"], page, hit.get("heading"))))
            score = hit["scores"].get("rerank", hit["score"])
            session.screen.line(f"{number}. {place}  ({score:.3f})", style="cyan")
            session.screen.line(f"   {_short(hit)}")


def _short(hit: dict[str, Any]) -> str:
    text = " ".join(str(hit["text"]).split())
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
