"""What the audit log records. Apart from `gateway.audit`, so that the operator's command can name
the actions without the libraries of the store."""

from typing import Final

ACTIONS: Final = (
    "collection.create",
    "collection.delete",
    "collection.export",
    "collection.import",
    "collection.reindex",
    "document.update",
    "document.delete",
    "tenant.delete",
    "key.create",
    "key.rotate",
    "key.promote",
    "key.revoke",
    "key.sync",
    "token.revoke",
)
"""Those on keys and tokens are done by `ragmesh keys` and `ragmesh token`."""
OK: Final = "ok"
INTERRUPTED: Final = "interrupted"
"""The outcome of an action whose caller left: it may have happened."""
