"""Tables of the SQL store. Every one is keyed by tenant first."""

from datetime import date, datetime

from sqlalchemy import (
    BigInteger,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, so that migrations can drop what they made."""

# SQLite counts up an INTEGER key only.
SequenceNumber = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Every table."""

    metadata = MetaData(naming_convention=CONVENTION)


class Session(Base):
    """A conversation."""

    __tablename__ = "sessions"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    """Who began it."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Turn(Base):
    """A question with its answer."""

    __tablename__ = "turns"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "session_id"], ["sessions.tenant", "sessions.id"], ondelete="CASCADE"
        ),
        Index(None, "tenant", "session_id", "number"),
    )

    number: Mapped[int] = mapped_column(SequenceNumber, primary_key=True, autoincrement=True)
    """Counts up over all sessions; orders the turns of one."""
    tenant: Mapped[str] = mapped_column(String(64))
    session_id: Mapped[str] = mapped_column(String(128))
    question: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Revocation(Base):
    """A token that is refused before it expires. Keyed by its issuer: a token names its tenant
    only to those who trust it."""

    __tablename__ = "revocations"
    __table_args__ = (Index(None, "consumer", "token_id", unique=True),)

    number: Mapped[int] = mapped_column(SequenceNumber, primary_key=True, autoincrement=True)
    consumer: Mapped[str] = mapped_column(String(256))
    token_id: Mapped[str] = mapped_column(String(256))
    """``jti``."""
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
    """Seconds since the epoch; the row may go after that."""
    revoked_at: Mapped[int] = mapped_column(BigInteger)


class Usage(Base):
    """What a tenant took of a model on a day."""

    __tablename__ = "usage"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    """In UTC."""
    model: Mapped[str] = mapped_column(String(256), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    embedding_tokens: Mapped[int] = mapped_column(BigInteger)
    estimated: Mapped[int] = mapped_column(BigInteger)
    """Requests among them whose tokens are estimates: they ended before the engine told."""


class AuditEntry(Base):
    """One line of the audit log. Rows are inserted and read, never changed: triggers refuse it,
    and each row carries the hash of the one before."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "tenant", "number"), Index(None, "consumer", "number"))

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """From 1, without gaps. As the key it lets only one row follow another."""
    at: Mapped[str] = mapped_column(String(32))
    """RFC 3339 in UTC, microseconds: as text, because it is hashed as it stands."""
    tenant: Mapped[str] = mapped_column(String(64))
    """The tenant's id; empty for what the operator's command did."""
    tenant_name: Mapped[str] = mapped_column(Text)
    consumer: Mapped[str] = mapped_column(String(256))
    subject: Mapped[str] = mapped_column(Text)
    token_id: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(128))
    previous: Mapped[str] = mapped_column(String(64))
    """Hash of the row before; zeros before the first."""
    hash: Mapped[str] = mapped_column(String(64))
