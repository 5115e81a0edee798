"""The place where the content of a clip is found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """The place of a clip's content: a file below the root, or an excerpt of it, in seconds."""

    content: str
    path: str
    sha256: str
    offset: float | None = None
    duration: float | None = None
