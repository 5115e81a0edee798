"""The canary: a fixed signal, and what each stage made of it when its version was released.

`canaries.json` holds, for every kind of representation with its defaults, every resample method and
six small encoded files: the op version, the SHA-256 of all values, and some values to measure a
difference by. Before a cache or a bundle is trusted, `guard` computes those of the stages in use:

* the same bits: nothing is said;
* within the entry's tolerance, a share of the range of its values: a warning, which is recorded,
  and keys of its own (`plan_here`), so that sets of these bits and of others never meet;
* beyond: CanaryError. An installation that computes something else writes nothing.

What only other parameters than the defaults reach is guarded by what a recipe itself made of the
canary, which a root keeps from its first build on (`ROOT/catalogue/canaries/HASH.json`).

`python -m basilar.pipeline.compute.canary` compares everything; `--write` records everything again,
for raised versions.
"""

import base64
import hashlib
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import representations, resample
from basilar.pipeline import audio, storage
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.defaults import SHARD_SECONDS
from basilar.pipeline.errors import CanaryError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.hashes import recipe_hashes
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import files

FILE = Path(__file__).with_name("canaries.json")
SAMPLE_RATE = 22050  # Hz, of the signal
FILES: dict[audio.Decoder, tuple[str, ...]] = {
    "soundfile": ("wav", "flac", "mp3", "ogg"),
    "ffmpeg": ("m4a", "opus"),
}
_PATHS = {  # of `audio.VERSIONS`
    **{"wav": "soundfile pcm", "flac": "soundfile flac", "mp3": "soundfile mp3"},
    **{"ogg": "soundfile vorbis", "m4a": "ffmpeg aac", "opus": "ffmpeg opus"},
}
LOSSY = ("mp3", "ogg", "m4a", "opus")
CONDITIONED = {  # frames as Kaldi conditions them, which no default does
    **{"kind": "log_mel", "n_fft": 512, "win_length": 400, "hop_length": 160, "align": "left"},
    **{"remove_dc": True, "preemphasis": 0.97},
}
ADVICE = (
    "install those versions, or find what was patched (python -m basilar.pipeline.compute.canary)"
)
DITHERED = {  # Kaldi's dither of 16-bit samples, which no default has
    **{"kind": "log_mel", "n_fft": 512, "hop_length": 160, "scale": 32768.0, "dither": 1.0},
}
_LIBRARIES = ("numpy", "soxr", "soundfile", "av")
_N_VALUES = 256
_N_GROUPS = 257  # prime, so that a group has values of all bins and frames
_TOLERANCE = 1e-4  # of the range of values
_TOLERANCES = {
    **dict.fromkeys(("decode wav", "decode flac", "representation waveform"), 0.0),
    **dict.fromkeys((f"decode {codec}" for codec in LOSSY), 1e-3),
    "representation spectral": 2e-3,  # its roll-off moves by whole bins
}


@dataclass(frozen=True)
class Canary:
    """What a stage made of the canary.

    `values` are float32 (513,): 256 values spread over all, and the means of 257 groups of every
    257th value, so that a change of any value shows. `tolerance` is a share of their range.
    """

    sha256: str
    values: NDArray[np.float32]
    tolerance: float

    @classmethod
    def of(cls, made: NDArray[Any], tolerance: float = 0.0) -> "Canary":
        """The canary of any array of floats or complex numbers."""
        plain = np.ascontiguousarray(made)
        parts = plain.view(np.float32) if plain.dtype.kind == "c" else plain
        flat = parts.reshape(-1).astype(np.float64)
        spread = flat[np.linspace(0, flat.size - 1, _N_VALUES).round().astype(np.int64)]
        group = np.arange(flat.size) % _N_GROUPS
        counts = np.bincount(group, minlength=_N_GROUPS)
        means = np.bincount(group, flat, _N_GROUPS) / np.maximum(counts, 1)
        values = np.concatenate([spread, means]).astype(np.float32)
        return cls(hashlib.sha256(plain.tobytes()).hexdigest(), values, tolerance)

    def difference(self, then: "Canary") -> float:
        """The largest difference from `then`, as a share of the range of its values."""
        with np.errstate(invalid="ignore"):
            largest = np.abs(self.values.astype(np.float64) - then.values).max()
        return float(largest / (np.ptp(then.values) or 1.0)) if np.isfinite(largest) else np.inf

    def to_json(self) -> dict[str, Any]:
        """As an entry of a JSON file."""
        values = base64.b64encode(self.values.astype("<f4").tobytes()).decode()
        return {"tolerance": self.tolerance, "sha256": self.sha256, "values": values}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Canary":
        """From an entry of a JSON file."""
        values = np.frombuffer(base64.b64decode(entry["values"]), "<f4")
        return cls(entry["sha256"], values, entry["tolerance"])


def signal(n_samples: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """A rising saw, noise and silence, from integers alone: float32 (n_samples,), below 0.64.

    No sine, no random generator: nothing that a library could compute otherwise.

    >>> hashlib.sha256(signal().tobytes()).hexdigest()[:12]
    '9c04134cf4b7'
    """
    n = np.arange(n_samples, dtype=np.int64)
    saw = (n * n // 441) % 2048 - 1024
    noise = (n * 1103515245 + 12345) // 65536 % 2048 - 1024
    y = (saw * 4 + noise) * (n % SAMPLE_RATE < 20000)
    return (y / 8192).astype(np.float32)


def n_samples(recipe: Recipe) -> int:
    """How much of the signal a recipe needs: a second at its rate, or more for a frame."""
    count = recipe.resample.sample_rate
    while not recipe.representation.n_frames(count):
        count *= 2
    return count


class Deviation(NamedTuple):
    """What this installation computes otherwise than was released, within the tolerance.

    `identity` tells its bits apart in keys; the `warning` is empty where that is known beforehand.
    """

    identity: str
    warning: str = ""


def guard(
    recipe: Recipe, *, decoders: Iterable[audio.Decoder] = (), catalogue: Path | None = None
) -> list[str]:
    """Check the stages that a recipe uses, once a process; return the warnings there are.

    With `catalogue`, the folder of a root, also what this very recipe makes of the canary: it is
    kept there the first time and compared from then on. Raises CanaryError.

    >>> guard(Recipe.from_dict({"representation": {"kind": "log_mel"}}))
    []
    """
    if catalogue is not None:
        _keep(recipe, _kept_file(recipe, catalogue))
    found = deviations(recipe, decoders=decoders, catalogue=catalogue)
    return [deviation.warning for deviation in found.values() if deviation.warning]


def deviations(
    recipe: Recipe,
    *,
    decoders: Iterable[audio.Decoder] = (),
    catalogue: Path | None = None,
    strict: bool = True,
) -> dict[str, Deviation]:
    """What this installation computes otherwise of the stages that a recipe uses, by canary.

    Of decoders the names are `decode` and a key of `audio.VERSIONS`. Nothing is written. Raises
    CanaryError for what is beyond its tolerance, unless it is not `strict`.

    >>> deviations(Recipe.from_dict({"representation": {"kind": "log_mel"}}), decoders=["soundfile"])
    {}
    """
    found: dict[str, Deviation] = {}
    for decoder in sorted(set(decoders)):
        for codec in FILES[decoder]:
            if deviation := _deviation(f"decode {codec}", strict):
                found[f"decode {_PATHS[codec]}"] = deviation
                if codec in LOSSY:  # codecs without a canary may deviate, too
                    found.setdefault(f"decode {decoder}", Deviation(deviation.identity))
    stages = [f"resample {recipe.resample.method}", f"representation {recipe.representation.kind}"]
    kind = recipe.representation
    if isinstance(kind, Framed) and (kind.remove_dc or kind.preemphasis):
        stages += ["representation conditioned"]
    if isinstance(kind, Framed) and kind.dither:
        stages += ["representation dithered"]
    for name in stages:
        if deviation := _deviation(name, strict):
            found[name] = deviation
    if recipe.resample.method == "soxr" and platform.machine() not in ("x86_64", "AMD64"):
        # Too few samples differ for a canary: VHQ one in twenty million.
        found.setdefault("resample soxr", Deviation(platform.machine()))
    if catalogue is not None and storage.exists(file := _kept_file(recipe, catalogue)):
        for name, deviation in _since_kept(recipe, file, strict).items():
            found.setdefault(name, deviation)
    return found


def decoders_of(manifest: Manifest) -> set[audio.Decoder]:
    """The decoders of the files of a manifest."""
    return set(manifest.table.column("decoder").unique().to_pylist()) - {"", None}


def plan_here(
    recipe: Recipe,
    manifest: Manifest,
    shard_seconds: float = SHARD_SECONDS,
    *,
    root: Path | None = None,
    strict: bool = True,
) -> Plan:
    """A plan whose keys say what this installation computes.

    With `root`, also as compared to what the recipe computed there first. Raises CanaryError where
    `deviations` does.
    """
    found = deviations(
        recipe,
        decoders=decoders_of(manifest),
        catalogue=None if root is None else root / "catalogue",
        strict=strict,
    )
    here = {name: deviation.identity for name, deviation in found.items()}
    return Plan(recipe, manifest, shard_seconds, here)


@cache
def _packaged() -> Any:
    return files.read_json(FILE)


@cache
def check(name: str) -> str:
    """Compare one of `names` with `canaries.json`, as `compare` does. Raises CanaryError."""
    recorded = _packaged()["canaries"].get(name)
    if recorded is None:
        raise CanaryError(
            f"{name}: nothing is recorded; run python -m basilar.pipeline.compute.canary --write"
        )
    return compare(
        name,
        _made(name),
        Canary.from_json(recorded),
        versions=_packaged()["versions"],
        since="it was released",
        advice=ADVICE,
    )


@cache
def _made(name: str) -> Canary:
    return Canary.of(_compute(name))


def _deviation(name: str, strict: bool) -> Deviation | None:
    """How one of `names` deviates, if it does."""
    try:
        warning = check(name)
    except CanaryError as error:
        if strict:
            raise
        warning = str(error)
    return _of_bits(_made(name), warning) if warning else None


def _of_bits(made: Canary, warning: str) -> Deviation:
    return Deviation(f"bits {made.sha256[:12]}", warning)


def _kept_file(recipe: Recipe, catalogue: Path) -> Path:
    return catalogue / "canaries" / f"{recipe_hashes(recipe)['normalization']}.json"


def _keep(recipe: Recipe, file: Path) -> None:
    """Record what a recipe makes of the canary, unless that was done before."""
    if not storage.exists(file):
        entries = {name: canary.to_json() for name, canary in _of_recipe(recipe).items()}
        files.write_json(file, {"versions": library_versions(), "canaries": entries})


@cache
def _since_kept(recipe: Recipe, file: Path, strict: bool) -> dict[str, Deviation]:
    """How what a recipe makes of the canary deviates from what a root has kept."""
    then, found = files.read_json(file), {}
    for name, canary in _of_recipe(recipe).items():
        try:
            warning = compare(
                name,
                canary,
                Canary.from_json(then["canaries"][name]),
                versions=then["versions"],
                since=f"the first build of this recipe here ({file})",
                advice="install those versions, or build in another root",
            )
        except CanaryError as error:
            if strict:
                raise
            warning = str(error)
        if warning:
            found[name] = _of_bits(canary, warning)
    return found


def compare(
    name: str, now: Canary, then: Canary, *, versions: dict[str, str], since: str, advice: str
) -> str:
    """Compare what `name` makes `now` and made `then`: no text, or a warning, which is also logged.

    `versions` are those of the libraries then, and `since` says when that was. Raises CanaryError
    for a difference beyond the tolerance of `then`.
    """
    if now.sha256 == then.sha256:
        return ""
    difference = now.difference(then)
    here = library_versions()
    libraries = ", ".join(
        f"{name} {here[name]}" + ("" if here[name] == said else f" (then {said})")
        for name, said in ((name, versions.get(name)) for name in here)
        if name != "machine" or said is not None
    )
    text = f"it computes other numbers than when {since}, by {difference:.1e} of their range, "
    text += f"where {then.tolerance:.0e} is allowed, with {libraries}"
    if all(versions.get(name) == here[name] for name in _LIBRARIES):
        text += "; no library is another, so that the processor, or a patch, is the cause"
    if difference > then.tolerance:
        raise CanaryError(f"{name}: {text}, and nothing was computed; {advice}")
    logging.getLogger("basilar").warning("%s: %s", name, text)
    return f"{name}: {text}"


def library_versions() -> dict[str, str]:
    """The kind of processor, and the versions of Python and of what values depend on."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"machine": platform.machine(), "python": platform.python_version(), **libraries}


def _compute(name: str) -> NDArray[Any]:
    """What a stage makes of the canary, by defaults: `decode flac`, `resample soxr`, …"""
    stage, op = name.split()
    if stage == "decode":
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / op
            file.write_bytes(base64.b64decode(_packaged()["audio"][op]))
            return _transform().decode(file)[0]
    if stage == "resample":
        transform = _transform(resample={"sample_rate": 16000, "method": op})
        return transform.resample(signal(), source_rate=SAMPLE_RATE)
    table = {"conditioned": CONDITIONED, "dithered": DITHERED}.get(op, {"kind": op})
    return _transform(representation=table).represent([signal()])[0]


def _transform(**sections: dict[str, Any]) -> Transform:
    return Transform.from_recipe({"representation": {"kind": "waveform"}, **sections})


def _of_recipe(recipe: Recipe) -> dict[str, Canary]:
    """What a recipe makes of the canary: from 3/2 or 3 times its rate, and at its rate."""
    transform, rate = Transform(recipe), recipe.resample.sample_rate
    y = signal(n_samples(recipe))
    resampled = transform.resample(y, source_rate=3 * rate if rate % 2 else 3 * rate // 2)
    kind = f"representation {recipe.representation.kind}"
    return {
        f"resample {recipe.resample.method}": Canary.of(resampled, _TOLERANCE),
        kind: Canary.of(transform.represent([y])[0], tolerance_of(kind)),
    }


def tolerance_of(name: str) -> float:
    """How far a canary may be off, as a share of the range of its values."""
    return _TOLERANCES.get(name, _TOLERANCE)


def names() -> Iterator[tuple[str, int]]:
    """Every canary there is, with the version of what it guards."""
    yield from ((f"decode {codec}", audio.VERSIONS[path]) for codec, path in _PATHS.items())
    for method in get_args(resample.Method):
        yield f"resample {method}", resample.VERSIONS[method]
    for kind, kind_version in representations.VERSIONS.items():
        yield f"representation {kind}", kind_version
    for op in ("conditioned", "dithered"):
        yield f"representation {op}", representations.VERSIONS["log_mel"]


def make_entries() -> dict[str, dict[str, Any]]:
    """By name, what this installation makes of the canary, as entries of `canaries.json`."""
    return {
        name: {"version": op_version, **Canary.of(_compute(name), tolerance_of(name)).to_json()}
        for name, op_version in names()
    }


def main(arguments: list[str]) -> int:
    """Compare every canary, or `--write` them; 0 unless one is beyond its tolerance."""
    if arguments not in ([], ["--write"]):
        print("usage: python -m basilar.pipeline.compute.canary [--write]", file=sys.stderr)
        return 2
    if arguments:
        content = {
            "versions": library_versions(),
            "audio": _packaged()["audio"],
            "canaries": make_entries(),
        }
        FILE.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        return 0
    failed = False
    for name, _ in names():
        try:
            print(f"{name:30} {check(name) or 'identical'}")
        except CanaryError as error:
            failed = True
            print(f"{name:30} FAILED {error}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
