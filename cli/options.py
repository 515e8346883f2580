"""The options that every command shares, and how a command is run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import typer

from cli.console import Failure, Screen
from cli.settings import CommandSettings
from services.runtime.errors import RagmeshError
from services.runtime.settings import load

JsonOption = Annotated[
    bool, typer.Option("--json", help="Write JSON for programs instead of text for people.")
]
LangOption = Annotated[
    Literal["en", "ja"] | None,
    typer.Option(
        "--lang", help="Language of the messages. Default: ja where LANG is ja*, else en."
    ),
]
Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Session:
    """What a running command has: its settings and where it writes."""

    settings: CommandSettings
    screen: Screen


@contextmanager
def command(as_json: bool = False, lang: str | None = None) -> Iterator[Session]:
    """Run a command's body; what fails is told as asked for, and ends it with a status."""
    settings = load(CommandSettings)
    language = lang or ("ja" if settings.language.lower().startswith("ja") else "en")
    screen = Screen(as_json=as_json, language=language)
    try:
        yield Session(settings, screen)
    except Failure as failure:
        screen.fail(failure)
    except RagmeshError as error:
        screen.fail(Failure(error.message, code=error.reason.lower()))
    except BrokenPipeError:
        raise typer.Exit(1) from None
    except OSError as error:
        if error.filename is None:
            raise
        # A data directory that cannot be made or written, a disk that is full.
        screen.fail(Failure(f"{error.filename}: {error.strerror}.", code="file_error"))
