"""Contents that could not be used."""

from typing import NamedTuple


class Quarantined(NamedTuple):
    """A content that could not be used: at which stage, why in a word of `Reason`, and in words."""

    content: str
    stage: str
    reason: str
    message: str
