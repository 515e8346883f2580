"""The one error for what does not fit into a model's context, with the numbers."""

from services.runtime.errors import InvalidArgument


def too_long(
    needed: int | None = None, limit: int | None = None, *, field: str = "messages"
) -> InvalidArgument:
    """CONTEXT_LENGTH_EXCEEDED.

    Args:
        needed: tokens of the request, or the least that they can be; None: not known.
        limit: tokens of the context; None: not known.
        field: what is too long.
    """
    message = "The request is longer than the model's context"
    if needed and limit:
        message += f": it needs {needed} tokens, the context has {limit}"
    elif limit:
        message += f", which has {limit} tokens"
    return InvalidArgument("CONTEXT_LENGTH_EXCEEDED", f"{message}.", field=field)
