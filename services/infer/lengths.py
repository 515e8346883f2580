"""The one error for what does not fit into a model's context, with the numbers."""

from services.runtime.errors import InvalidArgument


class ContextExceeded(InvalidArgument):
    """CONTEXT_LENGTH_EXCEEDED; `needed` and `limit` in tokens, None where they are not known."""

    def __init__(self, needed: int | None, limit: int | None, field: str) -> None:
        message = "The request is longer than the model's context"
        if needed and limit:
            message += f": it needs {needed} tokens, the context has {limit}"
        elif limit:
            message += f", which has {limit} tokens"
        super().__init__("CONTEXT_LENGTH_EXCEEDED", f"{message}.", field=field)
        self.needed = needed
        self.limit = limit


def too_long(
    needed: int | None = None, limit: int | None = None, *, field: str = "messages"
) -> ContextExceeded:
    """Args:
    needed: tokens of the request, or the least that they can be; None: not known.
    limit: tokens of the context; None: not known.
    field: what is too long.
    """
    return ContextExceeded(needed, limit, field)
