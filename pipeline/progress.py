"""The type of progress reporters: they get an iterable and its length, and yield its items."""

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
