"""The worker process: takes one document at a time from a pipe and answers with its chunks.

This module is preloaded by the fork server, so it imports the parsers here, once, and nothing of
gRPC. It is the composition root of the process: the one place below `__main__` where the core
meets adapters.
"""

import os
import resource
import signal
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection

# Imported for the fork server: forked workers then start with them loaded.
from services.preprocess.adapters import (  # noqa: F401
    REGISTRY,
    kreuzberg,
    markdown,
    pdfium,
    plain,
    selectolax,
)
from services.preprocess.adapters.huggingface import TokenizerCache
from services.preprocess.documents import Chunking, Processed, Source
from services.preprocess.ports import Parser, TokenCounter
from services.preprocess.processing import process
from services.preprocess.refusals import over_limit
from services.preprocess.tokens import EstimatedTokens, TokensByLanguage
from services.runtime.errors import RagmeshError
from services.runtime.registry import resolve


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker may use."""

    memory_bytes: int
    """Writable memory (RLIMIT_DATA), heap and thread stacks together."""


@dataclass(frozen=True, slots=True)
class Job:
    """One document to parse and cut."""

    source: Source
    title: str
    chunking: Chunking
    tokenizer: bytes | None
    """The tokenizer's file, when `chunking` names one."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An exception that says nothing to a user; its text stays in the worker's place."""

    kind: str
    """The exception's class, for the log."""


Outcome = Processed | RagmeshError | Crash


def main(connection: Connection, limits: WorkerLimits) -> None:
    """Serve jobs until the other end closes."""
    _confine(limits)
    tokenizers = TokenizerCache()
    connection.send(None)  # ready
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        outcome = _run(job, tokenizers)
        del job
        try:
            connection.send(outcome)
        except (BrokenPipeError, ConnectionResetError):
            return


def _confine(limits: WorkerLimits) -> None:
    # The parent decides when this ends: a terminal's Ctrl-C and a group's SIGTERM are for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # One document, one core: parallelism comes from several workers. Native code reads these.
    os.putenv("TOKENIZERS_PARALLELISM", "false")
    os.putenv("RAYON_NUM_THREADS", "1")


def _run(job: Job, tokenizers: TokenizerCache) -> Outcome:
    try:
        return process(job.source, job.title, job.chunking, _parser_of, _counter(job, tokenizers))
    except RagmeshError as error:
        return error.with_traceback(None)
    except (MemoryError, RecursionError):
        return over_limit(job.source.filename, "reading it takes more than the memory allowed")
    # A parser met something that nobody foresaw; the process stays sound, the document is refused.
    except Exception as error:
        return Crash(f"{type(error).__module__}.{type(error).__qualname__}")


def _counter(job: Job, tokenizers: TokenizerCache) -> TokenCounter:
    if job.tokenizer is None:
        return EstimatedTokens()
    counter = tokenizers.get(job.chunking.tokenizer_id, job.tokenizer)
    languages = job.chunking.languages
    return TokensByLanguage(counter, languages) if languages else counter


@cache
def _parser_of(format_name: str) -> Parser:
    parser: Parser = resolve(REGISTRY, format_name, "format")()
    return parser
