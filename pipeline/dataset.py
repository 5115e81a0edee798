"""Opening feature sets in training. Imports neither Luigi nor MLflow."""

from collections.abc import Iterator
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray


class FeatureSet:
    """A published feature set: `fs[i]` and `fs["clip id"]` are arrays (frames, bins).

    Open one with `FeatureSet.open(path)`. Clips are in content order: row i of `clips` is `fs[i]`.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        attributes: Any = group.attrs["basilar"]
        self.path = path
        self.attributes: dict[str, Any] = attributes
        self._group: Any = group

    @classmethod
    def open(cls, path: str | PathLike[str]) -> "FeatureSet":
        """Open `KEY.zarr`. Raises FileNotFoundError, or ValueError if it is another Zarr store."""
        path = Path(path)
        if not (path / "zarr.json").exists():
            raise FileNotFoundError(
                f"{path}: no feature set here; basilar ls lists those of a root"
            )
        group = zarr.open_group(path, mode="r")
        attributes: Any = group.attrs.get("basilar", {})
        if attributes.get("kind") != "feature set" or attributes.get("schema") != 1:
            raise ValueError(f"{path}: a Zarr store, but not a Basilar feature set of schema 1")
        return cls(path, group)

    @property
    def key(self) -> str:
        """The key of the feature set."""
        return str(self.attributes["key"])

    @property
    def digest(self) -> str:
        """The hash of its values."""
        return str(self.attributes["digest"])

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe it was made by."""
        recipe: dict[str, Any] = self.attributes["recipe"]
        return recipe

    @property
    def features(self) -> Any:
        """The Zarr array of all rows (row, bin); rows of no clip are NaN."""
        return self._group["features"]

    @cached_property
    def clips(self) -> pd.DataFrame:
        """One row a clip: id, sha256, label, split, duration in seconds, start, n_frames, …"""
        return pd.read_parquet(self.path / "clips.parquet")

    @cached_property
    def quarantine(self) -> pd.DataFrame:
        """One row a clip that could not be used: id, stage, reason, message."""
        return pd.read_parquet(self.path / "quarantine.parquet")

    @cached_property
    def stats(self) -> dict[str, NDArray[Any]]:
        """Statistics of the fit split by name: mean, std, min, max, histogram, centre, scale, …"""
        return {name: np.asarray(array) for name, array in self._group["stats"].arrays()}

    def __len__(self) -> int:
        return int(self.attributes["clips"])

    def __getitem__(self, clip: int | str) -> NDArray[Any]:
        """The features (frames, bins) of a clip, by its row or its id."""
        if isinstance(clip, str):
            if clip not in self._row_of:
                raise KeyError(f"{self.path}: no clip has the id {clip!r}")
            clip = self._row_of[clip]
        if not -len(self) <= clip < len(self):
            raise IndexError(f"{self.path}: clip {clip} of {len(self)}")
        start, n_frames = self._rows
        first = int(start[clip])
        values: NDArray[Any] = self.features[first : first + int(n_frames[clip])]
        return values

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def normalize(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """`(x - centre) / scale` per bin, float32, as the recipe's normalization says.

        `x` is (…, bins). With normalization `none`, `x` comes back as it is.
        """
        if self.recipe["normalization"]["kind"] == "none":
            return x
        centred = np.asarray(x, np.float32) - self.stats["centre"]
        normalized: NDArray[np.float32] = np.divide(centred, self.stats["scale"], out=centred)
        return normalized

    @cached_property
    def _rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.asarray(self._group["start"]), np.asarray(self._group["n_frames"])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clips["id"])}
