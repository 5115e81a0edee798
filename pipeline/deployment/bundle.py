"""A bundle: the transform of a feature set for deployment, and the proof that it still computes it.

    DIR/
      bundle.json      key, digest, recipe, labels, versions, and the SHA-256 of every other file
      centre.npy, scale.npy   what normalization subtracts and divides by: float32 (bins,)
      golden/          audio in, features out: NAME.npy or NAME.flac, and NAME.features.npy
      README.md

A folder of data: no pickle, no code. `deployment.export` makes one; this module reads it, and needs
no more than NumPy, soxr, soundfile, PyAV and Pydantic. `basilar check-bundle DIR`
checks one.
"""

import hashlib
import json
import sys
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from basilar.dsp.normalize import normalize
from basilar.pipeline import audio, errors
from basilar.pipeline.compute import canary
from basilar.pipeline.compute.guard import guard
from basilar.pipeline.compute.transform import Stream, Transform
from basilar.pipeline.errors import BundleError, RecipeError
from basilar.pipeline.recipes.hashes import OpVersion, op_versions, released
from basilar.pipeline.recipes.kinds.base import Section
from basilar.pipeline.recipes.recipe import Recipe

INDEX = "bundle.json"
EXIT = {"identical": 0, "within_tolerance": 3, "different": 1}  # codes of check-bundle
_MAX_INDEX = 1 << 24  # bytes

Name = Annotated[str, Field(pattern=r"^(golden/)?\w[\w.-]*$", max_length=100)]


class File(Section):
    """What a file of the bundle must be."""

    bytes: Annotated[int, Field(ge=0, le=1 << 30)]
    sha256: str


class Vector(Section):
    """A golden vector: audio in, features out."""

    name: str
    audio: Name
    sample_rate: Annotated[int, Field(ge=1, le=10_000_000)] | None
    """Hz of float32 audio; None for an encoded file."""
    features: Name


class Index(Section):
    """The content of `bundle.json`, but for the checksum of itself."""

    schema_version: Literal[1] = 1
    key: str
    digest: str
    recipe: dict[str, Any]
    recipe_hash: str
    op_versions: dict[str, OpVersion]
    labels: list[str]
    versions: dict[str, str]
    canary: list[str]
    vectors: Annotated[list[Vector], Field(min_length=1, max_length=1000)]
    files: dict[Name, File]


Verdict = Literal["identical", "within_tolerance", "different"]


class Golden(NamedTuple):
    """The result of a golden vector; `difference` is the largest, None if it is not a number.

    Within the tolerance is a difference that is at most a share of the range of all values, which
    depends on the kind (`canary.tolerance_of`).
    """

    name: str
    verdict: Verdict
    difference: float | None

    @property
    def identical(self) -> bool:
        """Whether every bit is as it was."""
        return self.verdict == "identical"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        shown = {"name": self.name, "identical": self.identical, "difference": self.difference}
        return shown if self.identical else {**shown, "verdict": self.verdict}

    def __str__(self) -> str:
        moved = "within the tolerance" if self.verdict == "within_tolerance" else "MOVED"
        found = "identical" if self.identical else f"{moved}, by up to {self.difference}"
        name = self.name if self.name.isprintable() else ascii(self.name)
        return f"  {name:30} {found}"


class Bundle:
    """Computes the features of a feature set as training reads them: normalized float32.

    Open one with `Bundle.load(folder)`.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self.index = _read_index(self.folder)
        try:
            self.recipe = Recipe.from_dict(self.index.recipe, source=f"{self.folder / INDEX}")
        except RecipeError as error:
            raise BundleError(str(error)) from None
        self._transform = Transform(self.recipe)
        files = self.index.files
        used = {"centre.npy", "scale.npy"}
        used |= {name for vector in self.index.vectors for name in (vector.audio, vector.features)}
        if unknown := ", ".join(sorted(used - files.keys())):
            raise BundleError(
                f"{self.folder / INDEX}: it has no checksum of {unknown}; make the bundle again"
            )
        damaged = [name for name, file in files.items() if not _intact(self.folder, name, file)]
        if damaged:
            raise BundleError(
                f"{self.folder}: damaged or missing: {', '.join(damaged)}; make it again"
            )
        self._centre, self._scale = (self._array(name) for name in ("centre.npy", "scale.npy"))
        columns = self.recipe.representation.columns()
        if not self._centre.shape == self._scale.shape == (columns,):
            raise BundleError(
                f"{self.folder}: centre.npy and scale.npy must hold {columns} values; make it again"
            )

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "Bundle":
        """Open a bundle that is whole, in an installation that computes what it was made with.

        Every checksum is compared; the canary of each stage is computed, and one golden vector.
        Raises FileNotFoundError, BundleError (damaged, or of other op versions) or CanaryError.
        """
        bundle = cls(folder)
        index, now = bundle.index, op_versions(bundle.recipe)
        if now != released(index.op_versions):
            raise BundleError(
                f"{bundle.folder}: made with the op versions {index.op_versions}; here they are "
                f"{now}; install basilar {index.versions.get('basilar')}"
            )
        guard(bundle.recipe)
        vector = index.vectors[0]
        tolerance = canary.tolerance_of(f"representation {bundle.recipe.representation.kind}")
        canary.compare(
            f"{bundle.folder}: {vector.name}",
            canary.Canary.of(bundle._compute(vector)),
            canary.Canary.of(bundle._array(vector.features), tolerance),
            versions=index.versions,
            since="the bundle was made",
            advice=canary.ADVICE,
        )
        return bundle

    @property
    def key(self) -> str:
        """The key of the feature set."""
        return self.index.key

    @property
    def labels(self) -> list[str]:
        """The names of all labels of the feature set, sorted."""
        return list(self.index.labels)

    @property
    def sample_rate(self) -> int:
        """The rate that features are computed at, Hz."""
        return self._transform.sample_rate

    def transform(self, y: NDArray[np.float32], *, sample_rate: int) -> NDArray[Any]:
        """Features (frames, bins) of a signal at `sample_rate` Hz, normalized, float32.

        `y` is floats (samples,), or (samples, channels), of which the recipe's channel is taken.
        Without normalization, values come in the stored dtype. Raises ValueError for less than a
        frame, integers, NaN, Inf and |x| > 2^50.
        """
        return self._normalized(self._transform.apply(y, sample_rate=sample_rate))

    def transform_file(
        self,
        path: str | PathLike[str],
        *,
        offset: float = 0.0,
        duration: float | None = None,
        limits: audio.Limits | None = None,
    ) -> NDArray[Any]:
        """Features (frames, bins) of an audio file, or of an excerpt of it in seconds.

        Raises AudioError if it cannot be decoded, or exceeds `limits` or those of the recipe, which
        are for training; OSError if it cannot be read; CanaryError if its decoder gives other
        samples than it should.
        """
        decoder = audio.sniff(Path(path))
        guard(self.recipe, decoders=[decoder] if decoder else [])
        features = self._transform.apply_file(path, offset=offset, duration=duration, limits=limits)
        return self._normalized(features)

    def stream(self, sample_rate: int) -> Stream:
        """Features of a signal that arrives in pieces, one channel at `sample_rate` Hz.

        Raises ValueError for a recipe whose values depend on a whole clip.
        """
        return _NormalizedStream(self, sample_rate)

    def check(self) -> list[Golden]:
        """Compute every golden vector and compare it with the one in the bundle."""
        tolerance = canary.tolerance_of(f"representation {self.recipe.representation.kind}")
        return [
            _compare(vector.name, self._compute(vector), self._array(vector.features), tolerance)
            for vector in self.index.vectors
        ]

    def _compute(self, vector: Vector) -> NDArray[Any]:
        if vector.sample_rate is None:
            return self.transform_file(self.folder / vector.audio)
        return self.transform(self._array(vector.audio), sample_rate=vector.sample_rate)

    def _normalized(self, x: NDArray[Any]) -> NDArray[Any]:
        none = self.recipe.normalization.kind == "none"
        return x if none else normalize(x, self._centre, self._scale)

    def _array(self, name: str) -> NDArray[Any]:
        """An array of the bundle; mapped, so that its header can claim no more than there is."""
        file = self.folder / name
        try:
            found = np.array(np.load(file, mmap_mode="r", allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise BundleError(f"{file}: not an array ({error}); make the bundle again") from None
        if found.dtype.kind not in "fc" or found.ndim not in (1, 2):
            raise BundleError(
                f"{file}: {found.dtype} {found.shape} is neither signal nor features; make the "
                "bundle again"
            )
        return found


class _NormalizedStream(Stream):
    def __init__(self, bundle: Bundle, sample_rate: int) -> None:
        super().__init__(bundle._transform, sample_rate)
        self._bundle = bundle

    def _features(self, samples: NDArray[np.float32]) -> NDArray[Any]:
        return self._bundle._normalized(super()._features(samples))


def encode_index(index: dict[str, Any]) -> bytes:
    """The only form of `bundle.json`: `load` refuses any other byte."""
    return (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()


def _read_index(folder: Path) -> Index:
    file = folder / INDEX
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no bundle here; basilar bundle KEY makes one")
    with file.open("rb") as opened:
        data = opened.read(_MAX_INDEX + 1)
    try:
        index = json.loads(data) if len(data) <= _MAX_INDEX else {}
        as_written = encode_index(index) == data
        said = index.pop("sha256")
        if not as_written or said != hashlib.sha256(encode_index(index)).hexdigest():
            raise ValueError("its checksum does not match")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{file}: damaged ({error}); make the bundle again") from None
    try:
        return Index.model_validate(index)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{file}: {where}: {first['msg']}; make the bundle again") from None


def _intact(folder: Path, name: str, expected: File) -> bool:
    """Whether a file is in the folder, not behind a link out of it, and is as it was written."""
    path = folder / name
    inside = path.is_file() and path.resolve().is_relative_to(folder.resolve())
    if not inside or path.stat().st_size != expected.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256


def _compare(name: str, now: NDArray[Any], then: NDArray[Any], tolerance: float) -> Golden:
    if now.shape != then.shape or now.dtype != then.dtype:
        return Golden(name, "different", None)
    if now.tobytes() == then.tobytes():
        return Golden(name, "identical", 0.0)
    with np.errstate(invalid="ignore"):  # infinities
        largest = float(np.abs(now.astype(np.complex128) - then).max())
        parts = np.stack([then.real, then.imag]) if then.dtype.kind == "c" else then
        close = largest <= tolerance * float(np.ptp(parts))
    verdict: Verdict = "within_tolerance" if close else "different"
    return Golden(name, verdict, largest if np.isfinite(largest) else None)


def verdict_of(found: list[Golden]) -> Verdict:
    """The worst verdict of all golden vectors.

    >>> verdict_of([Golden("a", "identical", 0.0), Golden("b", "within_tolerance", 1e-7)])
    'within_tolerance'
    """
    worst = {golden.verdict for golden in found}
    order: tuple[Verdict, ...] = ("different", "within_tolerance")
    return next((verdict for verdict in order if verdict in worst), "identical")


def main(arguments: list[str]) -> int:
    """Check the bundle in a folder: 0 if nothing moved, 3 within the tolerance, else 1."""
    if len(arguments) != 1:
        print("usage: python -m basilar.pipeline.deployment.bundle DIR", file=sys.stderr)
        return 2
    try:
        bundle = Bundle.load(arguments[0])
        found = bundle.check()
    except (BundleError, errors.CanaryError, OSError) as error:
        lines = str(error).split("\n")
        lines = [line if line.isprintable() else ascii(line) for line in lines]
        print("error: " + "\n".join(lines), file=sys.stderr)
        return 1
    print(f"{bundle.folder}: the bundle of {bundle.key}", *found, sep="\n")
    return EXIT[verdict_of(found)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
