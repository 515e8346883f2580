"""How an answer's citations look in a terminal."""

from typing import Any

from cli.console import Screen

_LONGEST_QUOTE = 160


def print_answer(screen: Screen, answer: dict[str, Any]) -> None:
    """The citations and the confidence, beneath an answer that is already there."""
    for citation in answer.get("citations") or []:
        screen.line(f"  {_place(screen, citation)}", style="cyan")
        quote = " ".join(str(citation.get("quote") or "").split())
        if quote:
            shown = quote if len(quote) <= _LONGEST_QUOTE else quote[: _LONGEST_QUOTE - 1] + "…"
            screen.line(f"      “{shown}”", style="dim")
    screen.say(
        "ask.confidence",
        style="dim",
        value=float(answer.get("confidence") or 0.0),
        model=answer.get("model") or "",
    )


def say_rerank(screen: Screen, answer: dict[str, Any]) -> None:
    """That hits do not follow the reranker, where it was asked for."""
    rerank = answer.get("rerank")
    if rerank and rerank["status"] != "applied":
        screen.say("rerank.not_applied", style="yellow", reason=rerank["reason"])


def _place(screen: Screen, citation: dict[str, Any]) -> str:
    """``[1] file.pdf, p. 2 — Heading``."""
    marker = str(citation.get("marker") or "").strip("[]")
    place = f"[{marker}] {citation.get('source') or citation.get('document_id') or ''}"
    if citation.get("page"):
        place += ", " + screen.text("ask.page", page=citation["page"])
    heading = citation.get("heading") or citation.get("title")
    return f"{place} — {heading}" if heading else place
