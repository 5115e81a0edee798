"""Where the content of a clip is found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a clip's content is found: a file below the root, or an excerpt of one, in seconds."""

    content: str
    path: str
    sha256: str
    offset: float | None = None
    duration: float | None = None
