"""Opening feature sets in training. Imports neither Luigi nor MLflow, and little else at once.

Features are read straight from their shard files (`store.reader`); the table of clips is touched
only when it is asked for, so that a set of a million clips opens at once. pandas and Zarr, which
`basilar[build]` installs, are needed for `clips`, `quarantine`, queries and `features` alone.
A feature set is pickled as its path, and each process opens its files itself.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from basilar.dsp import moments
from basilar.pipeline import storage
from basilar.pipeline.defaults import CACHE_BYTES
from basilar.pipeline.host import require
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.store.attributes import Published, store_attributes
from basilar.pipeline.store.dense import dense, places
from basilar.pipeline.store.layout import open_zarr
from basilar.pipeline.store.reader import Access, RowReader
from basilar.pipeline.text import printable
from basilar.pipeline.training.clip_table import ClipTable
from basilar.pipeline.training.normalizer import Normalizer

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from basilar.pipeline.recipes.recipe import Recipe

Pooling = Literal["mean", "std", "min", "max"]


class FeatureSet(Published):
    """A published feature set: `fs[i]` and `fs["clip id"]` are arrays (frames, bins).

    Open one with `FeatureSet.open(path)`. Clips are in content order: row i of `clips` is `fs[i]`.
    Values come as they are stored; `normalize` applies the recipe's normalization.
    """

    def __init__(
        self,
        path: Path,
        access: Access = "auto",
        memory_limit: int | None = None,
        selected: NDArray[np.int64] | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        attributes = store_attributes(path)
        storage.fetch(path, but=(*storage.FEATURES, "moments/"))
        self.path = path
        self.attributes = attributes
        self.access = access
        self.memory_limit = memory_limit
        self.cache_bytes = cache_bytes
        self._selected = selected

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        access: Access = "auto",
        memory_limit: int | None = None,
        cache: str | PathLike[str] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> "FeatureSet":
        """Open `KEY.zarr`, or what `ROOT/latest/NAME.json` points to now: a path, or a URL.

        Of a URL, whole shard files are fetched when they are first read, and mapped from the folder
        `cache` (left out: the user's), where those used last are kept, `cache_bytes` of them.

        `access` is `map` (memory-mapped), `read`, or `auto`: mapped if the set fits into
        `memory_limit` bytes (left out: half of what this process may use).
        Raises FileNotFoundError, ValueError if it is another Zarr store, or DamagedArtifactError,
        also later, where what the store says of itself cannot be.
        """
        path = storage.cached(path, cache)
        if path.suffix == ".json":
            store = path.absolute().parents[1] / "features" / f"{read_json(path)['key']}.zarr"
            path = storage.cached(storage.name(store), cache)
        return cls(path, access, memory_limit, None, cache_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        settings = (self.access, self.memory_limit, self._selected, self.cache_bytes)
        return FeatureSet, (self.path, *settings)

    def __repr__(self) -> str:
        total, recipe = self.attributes["clips"], self.recipe
        counts = f"{len(self)} of {total} clips" if self._selected is not None else f"{total} clips"
        hop = recipe["representation"].get("hop_length")
        if hop and self._selected is None:  # a frame begins each hop
            hours = self.attributes["frames"] * hop / recipe["resample"]["sample_rate"] / 3600
            counts += f", {hours:.2f} h"
        name = recipe.get("name") or recipe["representation"]["kind"]
        return (
            f"FeatureSet: {printable(name)}, {counts}, (frames, {self.n_bins}) {self.dtype}\n"
            f"  key   {self.key}\n  path  {printable(storage.name(self.path))}"
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe it was made by."""
        recipe: dict[str, Any] = self.attributes["recipe"]
        return recipe

    @cached_property
    def typed_recipe(self) -> "Recipe":
        """The resolved recipe as a `Recipe`, validated when it is first asked for."""
        from basilar.pipeline.recipes.recipe import Recipe

        return Recipe.from_dict(self.recipe)

    @property
    def features(self) -> Any:
        """The Zarr array of all rows (row, bin); rows of no clip are NaN."""
        return open_zarr(storage.fetch(self.path) / "features")

    @property
    def n_bins(self) -> int:
        """Columns of the features."""
        return self._rows.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the stored features."""
        return self._rows.dtype

    @cached_property
    def n_frames(self) -> NDArray[np.int64]:
        """How many frames each clip has: int64 (clips,)."""
        return self._table.of_selected(self._placed[1])

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The row of each clip in the store: int64 (clips,); all rows, unless some are selected."""
        return self._table.rows

    @cached_property
    def files(self) -> NDArray[np.int64]:
        """The shard file that each clip starts in: int64 (clips,)."""
        return self._first_rows // self._rows.shard_rows

    @cached_property
    def clips(self) -> "pd.DataFrame":
        """One row a clip: id, sha256, label, split, duration in seconds, start, n_frames, …

        Raises MissingLibraryError without pandas.
        """
        return self._table.frame()

    @cached_property
    def quarantine(self) -> "pd.DataFrame":
        """One row a clip that could not be used: id, stage, reason, message.

        Raises MissingLibraryError without pandas.
        """
        file = self.path / "quarantine.parquet"
        found: pd.DataFrame = require("pandas", str(file)).read_parquet(file)
        return found

    @cached_property
    def stats(self) -> dict[str, NDArray[Any]]:
        """Statistics of the fit split by name: mean, std, min, max, histogram, centre, scale, …"""
        folders = sorted(path.parent for path in (self.path / "stats").glob("*/zarr.json"))
        return {folder.name: dense(folder) for folder in folders}

    @cached_property
    def labels(self) -> list[str]:
        """The names of all labels of the set, sorted: `labels[code]` is the name of a code."""
        return self._table.labels

    @cached_property
    def label_codes(self) -> NDArray[np.int64]:
        """The label of each clip as an index into `labels`, -1 for none: int64 (clips,)."""
        return self._table.label_codes

    def select(self, query: str | None = None, /, **values: Any) -> "FeatureSet":
        """The clips that meet all conditions, as a feature set of its own; no feature is read.

        `select(split="train", label=["0", "1"])`: a column has this value, or one of these; None
        stands for no value. `select("duration > 1 and label != '3'")`: an expression of pandas.
        Statistics stay those of the whole set. Raises ValueError for a column there is not, and
        MissingLibraryError for an expression without pandas.
        """
        rows = self._table.matching(query, values)
        settings = (self.access, self.memory_limit, self.rows[rows], self.cache_bytes)
        return FeatureSet(self.path, *settings)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, clip: int | str) -> NDArray[Any]:
        """The features (frames, bins) of a clip, by its row or its id."""
        if isinstance(clip, str):
            clip = self._table.row_of(clip)
        return self.read(clip)

    def __getitems__(self, clips: Sequence[int]) -> list[NDArray[Any]]:
        """Several clips at once, as PyTorch's DataLoader asks for them."""
        return [self.read(clip) for clip in clips]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self.read(i) for i in range(len(self)))

    def read(self, clip: int, start: int = 0, n_frames: int | None = None) -> NDArray[Any]:
        """Frames `start` to `start + n_frames` of a clip, or to its end: (frames, bins), as stored.

        A read-only view of the mapped file where that is possible. Raises IndexError for frames or
        clips that are not there.
        """
        try:
            total = self.n_frames.item(clip)
        except IndexError:
            raise IndexError(f"{self.path}: clip {clip} of {len(self)}") from None
        stop = total if n_frames is None else start + n_frames
        if not 0 <= start <= stop <= total:
            raise IndexError(
                f"{self.path}: frames {start} to {stop} of clip {clip}, which has {total}"
            )
        first = self._first_rows.item(clip)
        return self._rows.read(first + start, first + stop)

    def crops(
        self,
        clips: ArrayLike,
        starts: ArrayLike,
        n_frames: int,
        *,
        normalize: bool = False,
        pad_value: float = 0.0,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Crops of `n_frames` frames: (crops, n_frames, bins), as stored or float32 normalized.

        Crop j is clip `clips[j]` from frame `starts[j]`; where the clip ends earlier, `pad_value`
        follows. `out` is filled if it is given. Raises IndexError for frames that are not there.
        """
        rows, begins = np.asarray(clips, np.int64), np.asarray(starts, np.int64)
        size = len(self)
        if rows.size and not (-size <= rows.min() and rows.max() < size):
            raise IndexError(f"{self.path}: clips {rows.min()} to {rows.max()} of {size}")
        available = self.n_frames[rows] - begins
        if rows.size and (begins.min() < 0 or available.min() < 0):
            worst = int(np.argmin(np.minimum(begins, available)))
            raise IndexError(
                f"{self.path}: frame {begins[worst]} of clip {rows[worst]}, "
                f"which has {self.n_frames[rows[worst]]}"
            )
        normalizer = self._normalizer if normalize else None
        if out is None:
            dtype = self.dtype if normalizer is None else np.dtype(np.float32)
            out = np.empty((len(rows), n_frames, self.n_bins), dtype)
        fill = (
            self._rows.read_into
            if normalizer is None
            else partial(normalizer.read_into, self._rows)
        )
        whole = np.minimum(available, n_frames)
        first_rows = self._first_rows[rows] + begins
        for first, frames, crop in zip(first_rows.tolist(), whole.tolist(), out, strict=True):
            if frames == n_frames:
                fill(first, crop)
            else:
                fill(first, crop[:frames])
                crop[frames:] = pad_value
        return out

    def normalize(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """`(x - centre) / scale` per bin, float32, as the recipe's normalization says.

        `x` is (…, bins). With normalization `none`, `x` comes back as it is.
        """
        return x if self._normalizer is None else self._normalizer(x)

    def seconds(self, frames: ArrayLike) -> NDArray[np.float64]:
        """The time in seconds, from the start of its clip, that each frame is centred on."""
        recipe = self.typed_recipe
        samples = recipe.representation.centres(np.asarray(frames, np.float64))
        times: NDArray[np.float64] = samples / recipe.resample.sample_rate
        return times

    def pooled(self, *names: Pooling) -> NDArray[np.float32]:
        """One vector a clip, float32 (clips, len(names) * bins): statistics over its frames.

        They come from the moments that the store keeps; no feature is read. `pooled("mean", "std")`
        is what a classifier of scikit-learn takes. Values are not normalized.
        """
        storage.fetch(self.path, only="moments/")
        kept = [dense(self.path / "moments" / n) for n in ("sum", "sum_squares", "min", "max")]
        per_clip = moments.of_clips(
            np.stack([self._table.of_selected(values) for values in kept], axis=1),
            self.n_frames,
            pivot=self.typed_recipe.representation.pivot,
        )
        for name in names:
            if name not in per_clip:
                raise ValueError(f"pooled: {name!r} is not one of {', '.join(per_clip)}")
        return np.concatenate([per_clip[name] for name in names], axis=1, dtype=np.float32)

    def to_hf(self) -> "Dataset":
        """A `datasets.Dataset` of Hugging Face: id, label, features. It keeps a copy of its own."""
        from basilar.pipeline.training.huggingface import to_dataset

        return to_dataset(self)

    @cached_property
    def _normalizer(self) -> Normalizer | None:
        """What normalizes, unless the recipe's normalization is `none`."""
        none = self.recipe["normalization"]["kind"] == "none"
        return None if none else Normalizer(self.path)

    @cached_property
    def _table(self) -> ClipTable:
        return ClipTable(self.path, self.attributes["clips"], self._selected)

    @cached_property
    def _rows(self) -> RowReader:
        return RowReader(
            self.path / "features",
            access=self.access,
            memory_limit=self.memory_limit,
            cache_bytes=self.cache_bytes,
        )

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        return self._table.of_selected(self._placed[0])

    @cached_property
    def _placed(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first row and the frames of all clips, which lie within the rows that there are."""
        return places(self.path, self.attributes["clips"], self._rows.shape[0])
