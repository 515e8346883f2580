"""The one error model. An error is raised once and spelled three times: gRPC, HTTP, OpenAI.

    RagmeshError                gRPC code              HTTP  OpenAI type            retry helps
    ├── InvalidArgument         INVALID_ARGUMENT       400   invalid_request_error  no
    ├── FailedPrecondition      FAILED_PRECONDITION    400   invalid_request_error  no
    ├── OutOfRange              OUT_OF_RANGE           400   invalid_request_error  no
    ├── Unauthenticated         UNAUTHENTICATED        401   authentication_error   no
    ├── PermissionDenied        PERMISSION_DENIED      403   permission_error       no
    ├── NotFound                NOT_FOUND              404   not_found_error        no
    ├── AlreadyExists           ALREADY_EXISTS         409   conflict_error         no
    ├── Aborted                 ABORTED                409   conflict_error         yes
    ├── ResourceExhausted       RESOURCE_EXHAUSTED     429   rate_limit_error       yes
    ├── Cancelled               CANCELLED              499   (the client is gone)   no
    ├── Unknown                 UNKNOWN                500   server_error           no
    ├── Internal                INTERNAL               500   server_error           no
    ├── DataLoss                DATA_LOSS              500   server_error           no
    ├── Unimplemented           UNIMPLEMENTED          501   server_error           no
    ├── Unavailable             UNAVAILABLE            503   server_error           yes
    └── DeadlineExceeded        DEADLINE_EXCEEDED      504   server_error           yes

`status.py` packs an error into ``google.rpc.Status`` and back; `gateway/errors.py` writes the
HTTP answer. Standard library only: `core` modules import this one.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple


class Spelling(NamedTuple):
    """How one canonical code is written on each surface."""

    number: int
    """The gRPC status number."""
    http_status: int
    openai_type: str
    retry_helps: bool
    """Whether the same request, sent again later, can succeed."""
    message: str
    """What to say when the error came without a message that is safe to show."""


SPELLINGS: Mapping[str, Spelling] = {
    "INVALID_ARGUMENT": Spelling(3, 400, "invalid_request_error", False, "The request is invalid."),
    "FAILED_PRECONDITION": Spelling(
        9, 400, "invalid_request_error", False, "The request cannot be carried out in this state."
    ),
    "OUT_OF_RANGE": Spelling(11, 400, "invalid_request_error", False, "A value is out of range."),
    "UNAUTHENTICATED": Spelling(
        16, 401, "authentication_error", False, "Valid credentials are required."
    ),
    "PERMISSION_DENIED": Spelling(7, 403, "permission_error", False, "This is not permitted."),
    "NOT_FOUND": Spelling(5, 404, "not_found_error", False, "The resource does not exist."),
    "ALREADY_EXISTS": Spelling(6, 409, "conflict_error", False, "The resource already exists."),
    "ABORTED": Spelling(10, 409, "conflict_error", True, "Another change came in between."),
    "RESOURCE_EXHAUSTED": Spelling(8, 429, "rate_limit_error", True, "A limit is reached."),
    "CANCELLED": Spelling(1, 499, "client_closed_request", False, "The caller went away."),
    "UNKNOWN": Spelling(2, 500, "server_error", False, "The server failed."),
    "INTERNAL": Spelling(13, 500, "server_error", False, "The server failed."),
    "DATA_LOSS": Spelling(15, 500, "server_error", False, "Stored data cannot be read."),
    "UNIMPLEMENTED": Spelling(12, 501, "server_error", False, "This is not implemented."),
    "UNAVAILABLE": Spelling(14, 503, "server_error", True, "The service is not available."),
    "DEADLINE_EXCEEDED": Spelling(4, 504, "server_error", True, "The time allowed ran out."),
}


class RagmeshError(Exception):
    """An error that may be told to the caller.

    Raise a subclass: ``raise NotFound("COLLECTION_NOT_FOUND", "...", field="collection")``.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        field: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Args:
        reason: a constant in UPPER_SNAKE_CASE for programs, such as ``MODEL_NOT_FOUND``.
        message: a sentence for people. It is sent to the caller as it is: no secrets, no
            exception text, no other tenant's names.
        field: the request field at fault, as a path such as ``documents[3].text``.
        retry_after: seconds after which to try again.
        """
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after = retry_after

    @property
    def spelling(self) -> Spelling:
        return SPELLINGS[self.code]

    @property
    def http_status(self) -> int:
        return self.spelling.http_status

    @property
    def openai_type(self) -> str:
        return self.spelling.openai_type

    def __str__(self) -> str:
        return f"{self.code} {self.reason}: {self.message}"


class InvalidArgument(RagmeshError):
    """The request is wrong whatever the state of the system."""

    code = "INVALID_ARGUMENT"


class FailedPrecondition(RagmeshError):
    """The request is right, the state of the system is not; something must change first."""

    code = "FAILED_PRECONDITION"


class OutOfRange(RagmeshError):
    """Past the end of what exists, such as a page number."""

    code = "OUT_OF_RANGE"


class Unauthenticated(RagmeshError):
    """The caller is not known."""

    code = "UNAUTHENTICATED"


class PermissionDenied(RagmeshError):
    """The caller is known and may not."""

    code = "PERMISSION_DENIED"


class NotFound(RagmeshError):
    """It does not exist, or belongs to another tenant."""

    code = "NOT_FOUND"


class AlreadyExists(RagmeshError):
    """It was to be created and is there."""

    code = "ALREADY_EXISTS"


class Aborted(RagmeshError):
    """A concurrent change won; read again and retry."""

    code = "ABORTED"


class ResourceExhausted(RagmeshError):
    """The caller's limit or the queue is full; the call was shed before any work."""

    code = "RESOURCE_EXHAUSTED"


class Cancelled(RagmeshError):
    """The caller gave up."""

    code = "CANCELLED"


class Unknown(RagmeshError):
    """A foreign error that says nothing more."""

    code = "UNKNOWN"


class Internal(RagmeshError):
    """A fault of ours."""

    code = "INTERNAL"


class DataLoss(RagmeshError):
    """Stored data is corrupt or gone."""

    code = "DATA_LOSS"


class Unimplemented(RagmeshError):
    """This version or back-end cannot do it."""

    code = "UNIMPLEMENTED"


class Unavailable(RagmeshError):
    """Not now; the same request may succeed later."""

    code = "UNAVAILABLE"


class DeadlineExceeded(RagmeshError):
    """The time allowed ran out."""

    code = "DEADLINE_EXCEEDED"


def error_classes() -> Iterator[type[RagmeshError]]:
    """Every class of the tree, one per canonical code."""
    yield from RagmeshError.__subclasses__()


ERRORS: Mapping[str, type[RagmeshError]] = {cls.code: cls for cls in error_classes()}
"""Canonical code name -> class."""
