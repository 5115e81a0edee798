"""Plans: the shards of a feature set and their keys. Pure functions.

Clips with equal content are computed once. Shards are content-defined: contents are ordered by
their hash, and a shard ends after a content if the next 64 bits of its hash, read as a fraction,
are below duration / `shard_seconds`. Shards hold `shard_seconds` of audio on average, and a
border depends only on the contents beside it. Adding a clip replaces at most one shard with at most
two; removing a clip replaces at most two with one; changing a clip, which may move it to another
shard, replaces at most three with three.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline import audio
from basilar.pipeline.defaults import SHARD_SECONDS
from basilar.pipeline.errors import ManifestError
from basilar.pipeline.hashing import clips_hash, hash_of
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.manifests.table import take_rows
from basilar.pipeline.recipes.hashes import (
    STAGES,
    OpVersion,
    feature_key,
    op_versions,
    recipe_hashes,
)
from basilar.pipeline.recipes.recipe import Recipe

MAX_SHARDS = 256  # keeps a build under 1,000 Luigi tasks: three per shard and a few more
_ROWS = 4096  # that are Python objects at one time


@dataclass(frozen=True)
class Shard:
    """A run of contents, and the key of each stage's artifact for them.

    `rows` are rows of the manifest in content order, so that clips of equal content are adjacent;
    `n_contents` is the number of different contents.
    """

    index: int
    seconds: float
    n_contents: int
    keys: dict[str, str]
    manifest: Manifest = field(repr=False, compare=False)
    rows: NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The source of each content, in order."""
        table = take_rows(self.manifest.table, ["path", "sha256", "offset", "duration"], self.rows)
        columns = (column.to_pylist() for column in table.columns)
        contents = self.manifest.contents_of(self.rows)
        first: dict[str, Source] = {}
        for content, *where in zip(contents, *columns, strict=True):
            first.setdefault(content, Source(content, *where))
        return tuple(first.values())


@dataclass(frozen=True)
class Plan:
    """Everything that a build will make, decided before it starts."""

    recipe: Recipe
    manifest: Manifest
    shard_seconds: float = SHARD_SECONDS
    deviations: Mapping[str, str] = field(default_factory=dict)
    """What this installation computes otherwise than was released, by the name of a canary: part of
    the keys, so that no key has two sets of bits (`guard.deviations`)."""

    def __post_init__(self) -> None:
        if not self.is_fitted.any():
            raise ManifestError(
                f'normalization.split: "{self.recipe.normalization.split}" holds no clip, the '
                f"manifest has {', '.join(sorted(set(self.manifest.splits)))}; name one of them in "
                'the recipe, or "all"'
            )

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The recipe hash of each stage."""
        return recipe_hashes(self.recipe, self.op_versions)

    @cached_property
    def op_versions(self) -> dict[str, OpVersion]:
        """The op version of each stage, here."""
        return op_versions(self.recipe, self.deviations)

    @cached_property
    def key(self) -> str:
        """The key of the feature set: recipe, manifest, and the decoders of lossy files."""
        return feature_key(self.hashes["normalization"], self.manifest.hash, self.decoders)

    @cached_property
    def decoders(self) -> list[str]:
        """The decoders, with versions, that the values of some clips may depend on."""
        names, which = self._decoders
        return sorted({names[i] for i in np.unique(which).tolist()} - {""})

    @cached_property
    def layout_hash(self) -> str:
        """The hash of the storage layout: part of an artifact's path, never of its key."""
        return hash_of("layout", **self.recipe.store.model_dump())[:8]

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, in content order."""
        order, words = self.manifest.order, self.manifest.words
        changes = (words[order[1:]] != words[order[:-1]]).any(axis=1)
        first = np.concatenate([[0], np.flatnonzero(changes) + 1])  # of each content
        rows = order[first]
        borders = shard_borders(
            words[rows, 1], self.manifest.seconds[rows], shard_seconds=self.shard_seconds
        )
        edges = [*first[np.concatenate([[0], borders[:-1]])].tolist(), len(order)]
        return tuple(
            self._shard(i, order[start:end]) for i, (start, end) in enumerate(pairwise(edges))
        )

    @cached_property
    def is_fitted(self) -> NDArray[np.bool_]:
        """Whether normalization is fitted on a row of the manifest: bool (clips,)."""
        split = self.recipe.normalization.split
        if split == "all":
            return np.ones(len(self.manifest), bool)
        return np.array([given == split for given in self.manifest.splits], bool)

    @cached_property
    def fit_key(self) -> str:
        """The key of the statistics: the recipe and the contents they are fitted on."""
        order = self.manifest.order
        rows = order[self.is_fitted[order]]
        return hash_of(
            "statistics",
            recipe=self.hashes["normalization"],
            clips=clips_hash(self._clips(rows)),
        )

    @cached_property
    def _decoders(self) -> tuple[list[str], NDArray[np.int8]]:
        """Names of decoders that values may depend on, and the index of each row's."""
        rows = self.manifest.rows("lossy", "decoder", "codec", "problem")
        names: list[str] = [""]
        seen: dict[tuple[bool, str, str, bool], int] = {}
        which = np.zeros(len(self.manifest), np.int8)
        for row, (lossy, decoder, codec, problem) in enumerate(rows):
            kind = (bool(lossy), decoder, codec, bool(problem))
            if kind not in seen:
                name = self._decoder(*kind)
                if name not in names:
                    names.append(name)
                seen[kind] = names.index(name)
            which[row] = seen[kind]
        return names, which

    def _decoder(self, lossy: bool, decoder: audio.Decoder, codec: str, problem: bool) -> str:
        """What tells the samples of a file apart from those of other installations."""
        if problem:  # which another version of either decoder may read
            return f"{audio.identity('soundfile')}, {audio.identity('ffmpeg')}"
        if not decoder:  # of a manifest that says nothing of its files
            return ""
        path = audio.path_of(decoder, codec or "")
        parts = [audio.identity(decoder)] if lossy else []
        if (version := audio.VERSIONS[path]) > 1:
            parts.append(f"{path} {version}")
        if lossy and (what := self.deviations.get(f"decode {path}")):
            parts.append(f"{path} {what}")
        return ", ".join(parts)

    def _clips(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
        """The content and the decoder of each of these rows."""
        names, which = self._decoders
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            decoders = [names[i] for i in which[some].tolist()]
            yield from zip(self.manifest.contents_of(some), decoders, strict=True)

    def _shard(self, index: int, rows: NDArray[np.int64]) -> Shard:
        words = self.manifest.words[rows]
        first = np.concatenate([[True], (words[1:] != words[:-1]).any(axis=1)])
        clips = clips_hash(self._clips(rows[first]))
        keys = {
            stage: hash_of("shard", stage=stage, recipe=self.hashes[stage], clips=clips)
            for stage in STAGES
        }
        seconds = float(self.manifest.seconds[rows[first]].sum())
        return Shard(index, seconds, int(first.sum()), keys, self.manifest, rows)


@dataclass(frozen=True)
class Work:
    """The work that is left of a plan: the shards that each stage must compute."""

    published: bool
    pending: dict[str, list[Shard]]


def outstanding(plan: Plan, *, published: bool, exists: Callable[[str, Shard], bool]) -> Work:
    """The shards that each stage must compute, given the artifacts that exist.

    As in Luigi, a stage runs only if an artifact of the stage below it is missing.
    """
    pending: dict[str, list[Shard]] = {stage: [] for stage in STAGES}
    for shard in () if published else plan.shards:
        for stage in reversed(STAGES):
            if exists(stage, shard):
                break
            pending[stage].append(shard)
    return Work(published, pending)


def disk_bytes(plan: Plan, work: Work, keep: Collection[str]) -> dict[str, int]:
    """The approximate number of bytes that each stage of this work will keep on disk."""
    kind = plan.recipe.representation
    rate = plan.recipe.resample.sample_rate
    a_second = {
        "decode": 4 * 44_100 if "decode" in keep else 0,
        "resample": 4 * rate if "resample" in keep else 0,
        "representation": kind.n_frames(rate * 1000)
        * kind.columns()
        * kind.stored_dtype().itemsize
        / 1000,
    }
    return {
        stage: round(a_second[stage] * sum(shard.seconds for shard in shards))
        for stage, shards in work.pending.items()
    }


def shard_borders(
    words: NDArray[np.uint64], seconds: NDArray[np.float64], *, shard_seconds: float
) -> NDArray[np.int64]:
    """The end of each shard in an ordered list of contents: int64 (shards,).

    `words` holds 64 bits of each content's hash. `shard_seconds` is doubled until there are at most
    256 shards; the borders for the doubled value are a subset of those before.

    >>> words = np.array([0, 2**60, 2**63], np.uint64)
    >>> shard_borders(words, np.array([1.0, 1.0, 0.5]), shard_seconds=2.0).tolist()
    [1, 2, 3]
    """
    fractions = words * 2.0**-64
    while True:
        borders = np.flatnonzero(fractions < seconds / shard_seconds) + 1
        if not borders.size or borders[-1] != len(words):
            borders = np.append(borders, len(words))
        if len(borders) <= MAX_SHARDS:
            return borders
        shard_seconds *= 2
