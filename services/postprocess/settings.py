"""What postprocess can be told."""

from typing import ClassVar

from pydantic import Field

from services.runtime.settings import RuntimeSettings


class PostprocessSettings(RuntimeSettings):
    """Limits of one answer."""

    service: ClassVar[str] = "postprocess"

    max_answer_characters: int = Field(200_000, ge=1)
    """Longer answers are refused."""
