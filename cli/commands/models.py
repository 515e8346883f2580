"""`ragmesh models`: what a request may name in `model`."""

from rich.table import Table

from cli.api import Api
from cli.options import JsonOption, LangOption, command


def models(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """List the aliases and models that the token may use.

    Example:

      ragmesh models --json
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        answer = api.call_again("GET", "/v1/models")
        session.screen.json(answer)
        if not as_json:
            table = Table(box=None, pad_edge=False)
            table.add_column("id")
            table.add_column("owned by")
            for model in answer["data"]:
                table.add_row(model["id"], str(model.get("owned_by") or ""))
            session.screen.out.print(table)
