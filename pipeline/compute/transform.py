"""The transform that training and deployment share: from samples or a file to features.

The stages of a build run this code and no other, so that what a model is served with has the bits
it was trained on.
"""

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.buffers import Allocate, allocate_rows
from basilar.dsp.representations import Features, Signals
from basilar.dsp.resample import ResampleStream, resample, resample_blocks
from basilar.dsp.streaming import FrameStream
from basilar.pipeline import audio
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.recipe import Recipe


class Transform:
    """Computes what a recipe says: decode, resample, representation, cast to the stored dtype.

    >>> transform = Transform.from_recipe({"representation": {"kind": "log_mel"}})
    >>> transform.apply(np.zeros(44100, np.float32), sample_rate=44100).shape
    (44, 128)
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @classmethod
    def from_recipe(cls, recipe: Recipe | dict[str, Any] | str | PathLike[str]) -> "Transform":
        """The transform of a recipe, of its table, or of a TOML file. Raises RecipeError."""
        if isinstance(recipe, dict):
            recipe = Recipe.from_dict(recipe)
        elif not isinstance(recipe, Recipe):
            recipe = Recipe.load(Path(recipe))
        return cls(recipe)

    @property
    def sample_rate(self) -> int:
        """The rate that features are computed at, Hz."""
        return self.recipe.resample.sample_rate

    def apply(self, y: NDArray[np.float32], *, sample_rate: int) -> NDArray[Any]:
        """Features (frames, bins) of a signal at `sample_rate` Hz.

        `y` is floats (samples,), or (samples, channels), of which the recipe's channel is taken.
        Raises ValueError if it has less than one frame, and for integers, NaN, Inf and
        |x| > 2^50.
        """
        mono = audio.mix(y, self.recipe.decode.channels)
        signal = self.resample(mono, source_rate=sample_rate)
        if not self.recipe.representation.n_frames(signal.size):
            too_short = self.recipe.representation.too_short_message
            raise ValueError(f"{len(y)} samples at {sample_rate} Hz are {too_short}")
        return self.represent([signal])[0]

    def apply_file(
        self,
        path: str | PathLike[str],
        *,
        offset: float = 0.0,
        duration: float | None = None,
        limits: audio.Limits | None = None,
    ) -> NDArray[Any]:
        """Features (frames, bins) of an audio file, or of an excerpt of it in seconds.

        Raises AudioError if it cannot be decoded, or exceeds `limits` or the recipe's; OSError if
        it cannot be read.
        """
        y, sample_rate = self.decode(Path(path), offset=offset, duration=duration, limits=limits)
        return self.apply(y, sample_rate=sample_rate)

    def stream(self, sample_rate: int) -> "Stream":
        """Features of a signal that arrives in pieces, one channel at `sample_rate` Hz.

        Raises ValueError for a recipe whose values depend on a whole clip.
        """
        return Stream(self, sample_rate)

    def decode(
        self,
        path: Path,
        *,
        offset: float | None = None,
        duration: float | None = None,
        limits: audio.Limits | None = None,
    ) -> tuple[NDArray[np.float32], int]:
        """The recipe's channel of a file, float32 (samples,), and its sample rate in Hz."""
        return audio.decode(path, **self._decoding(offset, duration, limits))

    def decode_blocks(
        self, path: Path, *, offset: float | None = None, duration: float | None = None
    ) -> Iterator[tuple[NDArray[np.float32], int]]:
        """What `decode` returns, block by block."""
        return audio.decode_blocks(path, **self._decoding(offset, duration))

    def _decoding(
        self,
        offset: float | None,
        duration: float | None,
        limits: audio.Limits | None = None,
    ) -> dict[str, Any]:
        said = self.recipe.decode
        own = audio.Limits(said.max_seconds, said.max_channels, said.max_mib << 20)
        limits = own if limits is None else own.within(limits)
        excerpt = {"offset": offset or 0.0, "duration": duration}
        return {"channels": said.channels, "limits": limits, **excerpt}

    def resample(self, y: NDArray[np.float32], *, source_rate: int) -> NDArray[np.float32]:
        """One channel brought to the recipe's sample rate: float32 (samples,)."""
        return resample(
            y,
            source_rate=source_rate,
            sample_rate=self.sample_rate,
            method=self.recipe.resample.method,
            quality=self.recipe.resample.quality,
        )

    def resample_blocks(
        self, blocks: Iterable[NDArray[np.float32]], *, source_rate: int
    ) -> Iterator[NDArray[np.float32]]:
        """What `resample` returns of a signal that comes in blocks, block by block."""
        return resample_blocks(
            blocks,
            source_rate=source_rate,
            sample_rate=self.sample_rate,
            method=self.recipe.resample.method,
            quality=self.recipe.resample.quality,
        )

    def represent(self, signals: Signals, *, empty: Allocate = np.empty) -> Features:
        """The representation of signals at the recipe's rate, in the stored dtype.

        Each must have at least one frame. A value too large for the dtype becomes infinite, and
        what is computed from that NaN. `empty` makes the arrays (`storage.scratch`).
        """
        if not signals:
            return []
        kind, dtype = self.recipe.representation, self.recipe.representation.stored_dtype()
        with np.errstate(over="ignore", invalid="ignore"):
            signals = kind.prepare(signals, empty=empty)
            features = kind.compute(signals, sample_rate=self.sample_rate, empty=empty)
            if features[0].dtype == dtype:
                return features
            stored = allocate_rows([len(x) for x in features], kind.columns(), dtype, empty=empty)
            for x, cast in zip(features, stored, strict=True):
                cast[...] = x  # through a buffer
            return stored


class Stream:
    """Features of a signal that arrives in pieces: the bits of the whole, however it is cut.

    `push` takes floats (samples,) and returns the frames that are complete, (frames, bins);
    `finish` returns the rest.
    """

    def __init__(self, transform: Transform, sample_rate: int) -> None:
        kind = transform.recipe.representation
        if not kind.is_framewise:
            raise ValueError(
                f"this {kind.kind} cannot be streamed: its frames depend on others (top_db, a "
                "reference of max, deltas, PCEN, CQT, dither); apply it to whole clips"
            )
        self._resampler = ResampleStream(
            source_rate=sample_rate,
            sample_rate=transform.sample_rate,
            method=transform.recipe.resample.method,
            quality=transform.recipe.resample.quality,
        )
        self._transform = transform
        self._frames: FrameStream | None = None
        if isinstance(kind, Framed):
            self._frames = FrameStream(kind.framing)
            # Spans hold whole frames and their padding: they are cut without any.
            inner = kind.model_copy(update={"center": False, "drop_last": False})
            recipe = transform.recipe.model_copy(update={"representation": inner})
            self._transform = Transform(recipe)

    def push(self, y: NDArray[np.float32]) -> NDArray[Any]:
        """Take the next samples. Raises ValueError for those that `Transform.apply` refuses."""
        ready = self._resampler.push(np.ascontiguousarray(audio.usable(y)))
        return self._features(ready if self._frames is None else self._frames.push(ready))

    def finish(self) -> NDArray[Any]:
        """End the signal."""
        rest = self._resampler.finish()
        if self._frames is None:
            return self._features(rest)
        parts = [self._features(self._frames.push(rest)), self._features(self._frames.finish())]
        return np.concatenate(parts)

    def _features(self, samples: NDArray[np.float32]) -> NDArray[Any]:
        kind = self._transform.recipe.representation
        if samples.size == 0:
            return np.empty((0, kind.columns()), kind.stored_dtype())
        return self._transform.represent([samples])[0]
