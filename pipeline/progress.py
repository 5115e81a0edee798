"""How work tells how far it is: an iterable goes in, and comes out as it is used."""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
