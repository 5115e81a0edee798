"""Recipes: the parameters of every stage, typed, validated and resolved.

Recipes are read from TOML. Defaults are in the types below and nowhere else; a printed recipe shows
every value. The error for an unknown key or a wrong value names the file, the key, what is allowed
and the nearest guess.

`schema_version` counts changes to the format of recipes; left out, it is 1. An older recipe is
upgraded in memory by `UPGRADES`, and `basilar recipe FILE --upgrade` prints it as it would be
written today. A newer one is refused. No hash contains the version: hashes are of values.
"""

import difflib
import logging
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from basilar.dsp.resample import Method, Quality
from basilar.pipeline.errors import RecipeError
from basilar.pipeline.host import require
from basilar.pipeline.recipes.kinds.base import Section
from basilar.pipeline.recipes.kinds.registry import AnyRepresentation
from basilar.pipeline.recipes.messages import (
    abbreviate,
    explain,
    name_line,
    parse_beginnings,
    suggest,
)

RECIPE_SCHEMA = 1
# By schema n: a function from its tables to those of n + 1. Its ValueError says why it cannot.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
SHIPPED = Path(__file__).parents[2] / "params"
MAX_BYTES = 2**20  # of a recipe
MOST_CHUNKS = 2**16  # of a shard file
_SHOWN = 20  # mistakes that one message names


class Decode(Section):
    """Decoding: from an audio file to one channel of samples at the file's own rate."""

    channels: Literal["mean", "first"] | Annotated[int, Field(ge=0, lt=64)] = "mean"
    """`mean` of all channels, the `first`, or an index from 0."""
    max_seconds: Annotated[float, Field(gt=0, le=604_800)] = 43_200.0
    """Longer clips are quarantined, s."""
    max_channels: Annotated[int, Field(ge=1, le=64)] = 64
    """Files with more channels are quarantined."""
    max_mib: Annotated[int, Field(ge=1, le=1_048_576)] = 16_384
    """Larger clips are quarantined: MiB of float32 samples of all channels."""


class Resample(Section):
    """Resampling to one sample rate."""

    sample_rate: Annotated[int, Field(ge=100, le=768_000)] = 22050
    """Hz."""
    method: Method = "sinc_kaiser"
    """sinc_kaiser, with the same bits on x86-64 and 64-bit Arm; or, to match others, soxr, as
    librosa does, scipy.signal.resample_poly or torchaudio.functional.resample."""
    quality: Quality = "very_high"
    """soxr's VHQ or HQ."""


class Normalization(Section):
    """Normalization when training reads the features; stored values are not normalized."""

    kind: Literal["none", "standard", "min_max", "robust"] = "none"
    """`standard`: mean and standard deviation; `min_max`: range to 0 … 1; `robust`: median and
    interquartile range, exact to a cell of the histogram. Cells are wide for kinds of widely spread
    values: 8 for `mfcc`, 1/128 for `waveform`; use `standard` for those."""
    per: Literal["bin", "global"] = "bin"
    """One centre and scale for each bin, or one for all bins."""
    split: Annotated[str, Field(min_length=1, max_length=4096)] = "train"
    """The split that is fitted on; `all` for all clips. Clips without a split are `train`."""


class Store(Section):
    """How features are stored on disk. No hash depends on it."""

    codec: Literal["none", "compact", "archive"] = "none"
    """`none` is memory-mapped in training; `compact` is Blosc LZ4, `archive` is Blosc Zstd."""
    chunk_kib: Annotated[int, Field(ge=1, le=65_536)] = 32
    """KiB of an inner chunk, the unit of decompression; its number of rows is a power of two."""
    shard_mib: Annotated[int, Field(ge=1, le=4096)] = 32
    """MiB of a Zarr shard file; its number of rows is a power of two."""

    @model_validator(mode="after")
    def _few_chunks(self) -> Self:
        if self.shard_mib * 1024 > MOST_CHUNKS * self.chunk_kib:
            raise ValueError(
                f"shard_mib = {self.shard_mib} and chunk_kib = {self.chunk_kib} make more than "
                f"{MOST_CHUNKS} chunks a file; raise chunk_kib or lower shard_mib"
            )
        return self


class Recipe(Section):
    """All parameters, from audio file to feature set."""

    schema_version: Annotated[int, Field(ge=1)] = RECIPE_SCHEMA
    """The version of the recipe format, for later versions of Basilar; part of no hash."""
    name: Annotated[str, Field(max_length=200)] = ""
    """A name for humans; part of no hash."""
    decode: Decode = Decode()
    resample: Resample = Resample()
    representation: AnyRepresentation
    normalization: Normalization = Normalization()
    store: Store = Store()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        part = self.representation.resolved(sample_rate=self.resample.sample_rate)
        object.__setattr__(self, "representation", part)
        if part.stored_dtype().kind == "c" and self.normalization.kind != "none":
            raise ValueError(
                f'normalization: kind = "{self.normalization.kind}" is not defined for complex '
                'values; use "none", or representation.kind = "magnitude"'
            )
        return self

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe from a TOML file, or a shipped recipe by its name.

        Raises RecipeError, or OSError if the file cannot be read.

        >>> Recipe.load("log_mel").representation.columns()
        128
        """
        file = find(path)
        toml, table = _parsed(file)
        if (version := table.get("schema_version", 1)) in UPGRADES:
            logging.getLogger("basilar").warning(
                "%s: schema_version = %s, read as %s; basilar recipe %s --upgrade prints the "
                "upgraded recipe",
                *(file, version, RECIPE_SCHEMA, file),
            )
        return cls.from_dict(table, source=str(file), toml=toml)

    @classmethod
    def from_dict(
        cls, table: dict[str, Any], *, source: str = "recipe", toml: str = ""
    ) -> "Recipe":
        """Validate a table of sections. Raises RecipeError.

        Errors name `source`, and the line of the text `toml` if one is given.

        >>> Recipe.from_dict({"representation": {"kind": "log_mel"}}).representation.columns()
        128
        >>> Recipe.from_dict(
        ...     {"representation": {"kind": "mel", "n_mel": 40}}
        ... )  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        basilar.pipeline.errors.RecipeError: recipe: representation.n_mel is not a key; did...
        """
        if isinstance(table, dict):  # a damaged store may hold anything
            table = upgraded(table, source=source)
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            mistakes = error.errors()
            found = [explain(mistake, table, cls.model_fields) for mistake in mistakes[:_SHOWN]]
            starts = parse_beginnings(toml)
            lines = [f"{source}{name_line(starts, keys)}: {message}" for keys, message in found]
            if len(mistakes) > _SHOWN:
                lines.append(f"  … and {len(mistakes) - _SHOWN} more mistakes")
            raise RecipeError("\n".join(lines)) from None

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included; keys without a value, like `top_db` unset, are absent."""
        return self.model_dump(exclude_none=True)

    def to_toml(self) -> str:
        """The resolved recipe as TOML; reading it back gives an equal recipe."""
        toml: str = require("tomli_w", "to_toml").dumps(self.resolved())
        return toml


def find(path: str | Path) -> Path:
    """The file of a recipe: the path itself, or the file of a shipped recipe with this name.

    Raises RecipeError for a bare name that is neither, and for a missing file whose name is close
    to that of a shipped recipe.
    """
    path = Path(path)
    if path.exists():
        return path
    names = sorted(file.stem for file in SHIPPED.glob("*.toml"))
    if path.suffix or path.name != str(path):
        if near := difflib.get_close_matches(path.stem[:100], names, 1, 0.8):
            raise RecipeError(f"{path}: no such file; did you mean {near[0]}, which is shipped?")
        return path
    if path.name not in names:
        raise RecipeError(
            f"{abbreviate(path.name)}: no such file, nor a shipped recipe; "
            f"{suggest(path.name, names)}"
        )
    return SHIPPED / f"{path.name}.toml"


def upgraded(table: dict[str, Any], *, source: str = "recipe") -> dict[str, Any]:
    """The table of a recipe of any schema, in schema `RECIPE_SCHEMA`. Raises RecipeError."""
    version = table.get("schema_version", 1)
    if type(version) is not int or version < 1:
        raise RecipeError(
            f"{source}: schema_version = {abbreviate(version)} is refused; it must be a whole "
            f"number from 1 to {RECIPE_SCHEMA}"
        )
    if version > RECIPE_SCHEMA:
        raise RecipeError(
            f"{source}: schema_version = {version} is newer than {RECIPE_SCHEMA}, the newest that "
            "this installation reads; install a newer Basilar"
        )
    for older in range(version, RECIPE_SCHEMA):
        try:
            table = UPGRADES[older](table)
        except ValueError as error:
            raise RecipeError(
                f"{source}: schema_version = {version} can no longer be read ({error}); write it "
                "again, starting from a shipped recipe"
            ) from None
    return {**table, "schema_version": RECIPE_SCHEMA}


def upgraded_text(path: str | Path) -> str:
    """A recipe file in today's schema; its comments are kept where nothing had to change.

    Raises RecipeError, or OSError if it cannot be read.
    """
    file = find(path)
    text, table = _parsed(file)
    Recipe.from_dict(table, source=str(file))
    if table.get("schema_version", 1) < RECIPE_SCHEMA:
        toml: str = require("tomli_w", str(file)).dumps(upgraded(table))
        return toml
    return text if "schema_version" in table else f"schema_version = {RECIPE_SCHEMA}\n{text}"


def _parsed(file: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and its tables."""
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{file}: it is larger than {MAX_BYTES} bytes; name another file")
    try:
        text = data.decode()
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{file}: not a TOML file ({error}); correct it, or name another"
        ) from None
