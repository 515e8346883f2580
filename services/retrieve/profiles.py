"""What is learned from a collection's chunks and kept with it: average lengths and calibrations."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from services.retrieve.calibration import Calibration
from services.retrieve.ports import ArmWeights

FORMAT = 1
_KEPT = 1024
"""Profiles that stay parsed: every search needs its collection's."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A collection's profile."""

    chunks: int = 0
    """How many chunks it had when this was learned."""
    encoder: str = ""
    """The encoder that was calibrated."""
    at: float = 0.0
    """When, in Unix seconds."""
    seconds: float = 0.0
    """How long that took."""
    averages: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By language, the average length in terms of each of the analyser's fields."""
    unfinished: tuple[str, ...] = ()
    """Languages some of whose chunks are still to be weighed by `averages`."""
    languages: Mapping[str, Calibration] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, ArmWeights]:
        """The arms' weights by language."""
        return {language: one.weights for language, one in self.languages.items()}


def dump(profile: Profile) -> str:
    """As JSON."""
    return json.dumps({"format": FORMAT, **asdict(profile)}, separators=(",", ":"))


def adoptable(text: str) -> Profile | None:
    """A profile that somebody sends; None where nothing is learned in it, or it is none."""
    try:
        profile = parse(text)
        lengths = [value for fields in profile.averages.values() for value in fields]
        weights = [value for one in profile.weights.values() for value in (one.dense, one.sparse)]
        if profile.chunks < 0 or profile.unfinished or not profile.averages:
            return None
        if not all(math.isfinite(value) and value >= 1 for value in lengths):
            return None
        return profile if all(0 <= value <= 1 for value in weights) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@lru_cache(maxsize=_KEPT)
def parse(text: str) -> Profile:
    """From JSON. What another format wrote is learned again: an empty profile."""
    values = json.loads(text) if text else {}
    if values.pop("format", None) != FORMAT:
        return Profile()
    languages = {
        language: Calibration(**{**one, "weights": ArmWeights(**one["weights"])})
        for language, one in values.pop("languages").items()
    }
    averages = {language: tuple(lengths) for language, lengths in values.pop("averages").items()}
    unfinished = values.pop("unfinished")
    if isinstance(unfinished, bool):  # earlier versions said only whether
        unfinished = averages if unfinished else ()
    return Profile(**values, averages=averages, unfinished=tuple(unfinished), languages=languages)
