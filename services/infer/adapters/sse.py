"""Streams of lines: server-sent events and JSON by line, cut out of blocks of bytes."""

from typing import NamedTuple

from services.infer.adapters.failures import BAD, failure

_MAX_LINE = 8 * 1024 * 1024
"""Bytes of one event, past which an answer is not read on."""


class EventSplitter:
    """Takes a text/event-stream in blocks as they come and gives the data of whole events
    (WHATWG HTML, 9.2.6); other fields and comments are skipped. Lines end with LF or CRLF only: a
    line separator inside JSON text is none here."""

    __slots__ = ("_parts", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._parts: list[bytes] = []

    def feed(self, block: bytes) -> list[bytes]:
        """The data of the events that end in this block.

        Raises:
            Internal: ENGINE_BAD_ANSWER, for a line without an end.
        """
        lines = (self._rest + block if self._rest else block).split(b"\n")
        self._rest = rest = lines.pop()
        if len(rest) > _MAX_LINE:
            raise failure(BAD)
        events: list[bytes] = []
        parts = self._parts
        for line in lines:
            if line.startswith(b"data:"):
                parts.append(line[6 if line.startswith(b"data: ") else 5 :].rstrip(b"\r"))
            elif parts and (not line or line == b"\r"):
                events.append(parts[0] if len(parts) == 1 else b"\n".join(parts))
                parts.clear()
        return events

    def end(self) -> list[bytes]:
        """The data of a last event, from servers that end without its empty line."""
        return self.feed(b"\n\n") if self._rest or self._parts else []


class Message(NamedTuple):
    """An event with its other fields; `id` and `event` are empty where it has none."""

    data: bytes
    event: str = ""
    id: str = ""


class MessageSplitter:
    """As `EventSplitter`, for streams whose events have types and numbers. A line that is a bare
    JSON object, as NVIDIA's toolkit puts its errors into a stream, is an event of the type
    ``error``."""

    __slots__ = ("_event", "_id", "_parts", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._parts: list[bytes] = []
        self._event = self._id = ""

    def feed(self, block: bytes) -> list[Message]:
        """The events that end in this block.

        Raises:
            Internal: ENGINE_BAD_ANSWER, for a line without an end.
        """
        lines = (self._rest + block if self._rest else block).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_LINE:
            raise failure(BAD)
        messages: list[Message] = []
        for each in lines:
            line = each.rstrip(b"\r")
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if not line:
                if self._parts:
                    messages.append(Message(b"\n".join(self._parts), self._event, self._id))
                self._parts, self._event, self._id = [], "", ""
            elif name == b"data":
                self._parts.append(value)
            elif name == b"event":
                self._event = value.decode(errors="replace")
            elif name == b"id":
                self._id = value.decode(errors="replace")
            elif line.startswith(b"{"):
                messages.append(Message(line, "error"))
        return messages

    def end(self) -> list[Message]:
        """A last event, from servers that end without its empty line."""
        return self.feed(b"\n\n") if self._rest or self._parts else []


class LineSplitter:
    """Takes newline-delimited JSON in blocks and gives whole lines, without empty ones."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that end in this block.

        Raises:
            Internal: ENGINE_BAD_ANSWER, for a line without an end.
        """
        lines = (self._rest + block if self._rest else block).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_LINE:
            raise failure(BAD)
        return [line for line in (line.strip() for line in lines) if line]

    def end(self) -> list[bytes]:
        """A last line without an end."""
        return self.feed(b"\n") if self._rest else []
