"""What goes to the terminal: people's text with colours on a terminal, JSON for programs."""

import json
import sys
from typing import Any, NoReturn

import typer
from rich.console import Console

from cli.messages import message

EXIT_FAILED = 1


class Failure(Exception):
    """Ends the command with a message on stderr."""

    def __init__(self, text: str, *, status: int = EXIT_FAILED, code: str = "failed") -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.code = code
        """For programs, under `--json`."""


class Screen:
    """Where a command writes. rich leaves colours out without a terminal or under NO_COLOR."""

    def __init__(self, *, as_json: bool = False, language: str = "en") -> None:
        self.as_json = as_json
        self.language = language
        # Other people's text is printed: no markup is read in it, no emoji codes, no guesses.
        options: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
        self.out = Console(soft_wrap=True, **options)
        self.err = Console(stderr=True, soft_wrap=True, **options)

    def say(self, key: str, *, style: str | None = None, **values: object) -> None:
        """A message for people, on stdout; silent under `--json`."""
        if not self.as_json:
            self.out.print(self.text(key, **values), style=style)

    def note(self, key: str, *, style: str | None = "yellow", **values: object) -> None:
        """A message beside the answer, on stderr, also under `--json`."""
        self.err.print(self.text(key, **values), style=style)

    def line(self, text: str = "", *, style: str | None = None) -> None:
        if not self.as_json:
            self.out.print(text, style=style)

    def text(self, key: str, **values: object) -> str:
        return message(key, self.language, **values)

    def json(self, value: object) -> None:
        """One JSON document on a line of its own, when `--json` asks for it."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def fail(self, failure: Failure) -> NoReturn:
        """Say what failed, as asked for, and end."""
        if self.as_json:
            self.json({"error": {"message": failure.text, "code": failure.code}})
        else:
            self.err.print(failure.text, style="red")
        raise typer.Exit(failure.status)
