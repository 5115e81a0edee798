"""Plans: which shards a feature set is made of and by which keys they are addressed. Pure.

Clips with equal content are computed once. Contents are ordered by their hash, and a border falls
after a content when the next 64 bits of its hash, as a fraction, are below duration /
`shard_seconds`: shards hold `shard_seconds` of audio on average, borders depend on the contents
near them alone, and adding, removing or changing a clip touches one or two shards.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, cached_property

from pipeline import audio
from pipeline.keys import STAGES, feature_key, hash_of, recipe_hashes
from pipeline.manifest import Manifest, ManifestError
from pipeline.recipe import Recipe
from pipeline.stages import Source

MAX_SHARDS = 256  # a build stays under 1,000 Luigi tasks: three a shard and a few more
DEFAULT_SHARD_SECONDS = 600.0


@dataclass(frozen=True)
class Shard:
    """Some contents, in order, and the key of what each stage makes of them."""

    index: int
    sources: tuple[Source, ...]
    seconds: float
    keys: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """Everything a build makes, decided before anything is done."""

    recipe: Recipe
    manifest: Manifest
    shard_seconds: float = DEFAULT_SHARD_SECONDS

    def __post_init__(self) -> None:
        if not self.fit_rows():
            raise ManifestError(
                f'normalization.split = "{self.recipe.normalization.split}" holds no clip; the '
                f"manifest has {', '.join(sorted(set(self.manifest.splits)))}; name one of them in "
                'the recipe, or "all"'
            )

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The recipe hash of each stage."""
        return recipe_hashes(self.recipe)

    @cached_property
    def key(self) -> str:
        """The key of the feature set: recipe, manifest, and the decoders of lossy files."""
        return feature_key(self.hashes["normalization"], self.manifest.hash, self.decoders)

    @cached_property
    def decoders(self) -> list[str]:
        """The decoders, with versions, whose choice may change what comes out of some clips."""
        return sorted({name for name in self._decoders.values() if name})

    @cached_property
    def layout(self) -> str:
        """How features lie on disk: part of an artifact's address, never of its key."""
        return hash_of("layout", **self.recipe.store.model_dump())[:8]

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, in content order."""
        sources, lengths = self._sources
        borders = shard_borders(
            list(sources), list(lengths.values()), shard_seconds=self.shard_seconds
        )
        contents = list(sources)
        return tuple(
            self._shard(i, [sources[content] for content in contents[start:end]])
            for i, (start, end) in enumerate(zip([0, *borders[:-1]], borders, strict=True))
        )

    @cached_property
    def order(self) -> list[int]:
        """The manifest's rows in content order; equal contents by id."""
        contents = self.manifest.contents
        return sorted(range(len(contents)), key=lambda row: (contents[row], row))

    def fit_rows(self) -> list[int]:
        """The rows, in content order, that normalization is fitted on."""
        split = self.recipe.normalization.split
        splits = self.manifest.splits
        return [row for row in self.order if split == "all" or splits[row] == split]

    def fit_key(self) -> str:
        """The key of the statistics: the recipe and the contents they are fitted on."""
        contents = self.manifest.contents
        return hash_of(
            "statistics",
            recipe=self.hashes["normalization"],
            clips=[[contents[row], self._decoders[contents[row]]] for row in self.fit_rows()],
        )

    @cached_property
    def _decoders(self) -> dict[str, str]:
        """By content, the decoders whose versions may change what comes out; empty if none may."""
        table = self.manifest
        columns = (table.column(name) for name in ("lossy", "decoder", "problem"))
        identity = cache(audio.identity)
        names: dict[str, str] = {}
        for content, lossy, decoder, problem in zip(table.contents, *columns, strict=True):
            if problem:  # which another version may be able to read
                names[content] = f"{identity('soundfile')}, {identity('ffmpeg')}"
            else:
                names[content] = identity(decoder) if lossy else ""
        return names

    @cached_property
    def _sources(self) -> tuple[dict[str, Source], dict[str, float]]:
        """Each content once, in order: where it is found and how long it is."""
        names = ("path", "sha256", "offset", "duration")
        columns = [self.manifest.column(name) for name in names]
        contents, seconds = self.manifest.contents, self.manifest.seconds
        sources: dict[str, Source] = {}
        lengths: dict[str, float] = {}
        for row in self.order:
            content = contents[row]
            if content not in sources:
                path, sha256, offset, duration = (column[row] for column in columns)
                sources[content] = Source(content, path, sha256, offset, duration)
                lengths[content] = seconds[row]
        return sources, lengths

    def _shard(self, index: int, sources: list[Source]) -> Shard:
        clips = [[source.content, self._decoders[source.content]] for source in sources]
        keys = {
            stage: hash_of("shard", stage=stage, recipe=self.hashes[stage], clips=clips)
            for stage in STAGES
        }
        _, lengths = self._sources
        seconds = sum(lengths[source.content] for source in sources)
        return Shard(index, tuple(sources), seconds, keys)


@dataclass(frozen=True)
class Work:
    """What of a plan is there and what is not: by stage, the shards to compute."""

    published: bool
    pending: dict[str, list[Shard]]


def outstanding(plan: Plan, *, published: bool, exists: Callable[[str, Shard], bool]) -> Work:
    """Which shards each stage must compute, given which artifacts exist.

    A stage is asked for only by a stage below it that is missing, as Luigi does it.
    """
    pending: dict[str, list[Shard]] = {stage: [] for stage in STAGES}
    for shard in () if published else plan.shards:
        for stage in reversed(STAGES):
            if exists(stage, shard):
                break
            pending[stage].append(shard)
    return Work(published, pending)


def disk_bytes(plan: Plan, work: Work, keep: Collection[str]) -> dict[str, int]:
    """About how many bytes each stage of outstanding work leaves on the disk."""
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


def shard_borders(contents: list[str], seconds: list[float], *, shard_seconds: float) -> list[int]:
    """The end of each shard in a sorted list of contents (64 hex digits), the last one included.

    `shard_seconds` is doubled until there are at most 256 shards; the borders of a doubled value
    are a subset of those before.

    >>> shard_borders(["00" * 32, "0f" * 32, "ff" * 32], [1.0, 1.0, 1.0], shard_seconds=2.0)
    [1, 2, 3]
    """
    fractions = [int(content[16:32], 16) / 2**64 for content in contents]
    while True:
        borders = [
            i + 1
            for i, (fraction, length) in enumerate(zip(fractions, seconds, strict=True))
            if fraction < length / shard_seconds
        ]
        if not borders or borders[-1] != len(contents):
            borders.append(len(contents))
        if len(borders) <= MAX_SHARDS:
            return borders
        shard_seconds *= 2
