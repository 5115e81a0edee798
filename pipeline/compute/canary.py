"""The canary: a fixed signal, and what each stage made of it when its version was released.

`canaries.json` holds, for every kind of representation with its defaults, every resample method and
six small encoded files: the op version, the SHA-256 of all values, and some values to measure a
difference by. Before a cache or a bundle is trusted, `compute.guard` computes those in use:

* the same bits: nothing is said;
* within the entry's tolerance, a share of the range of its values: a warning, which is recorded,
  and keys of its own, so that sets of these bits and of others never meet (`compute.guard`);
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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from basilar.dsp import representations, resample
from basilar.pipeline import audio
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.errors import CanaryError
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import files

FILE = Path(__file__).with_name("canaries.json")
SAMPLE_RATE = 22050  # Hz, of the signal
FILES: dict[audio.Decoder, tuple[str, ...]] = {
    "soundfile": ("wav", "flac", "mp3", "ogg"),
    "ffmpeg": ("m4a", "opus"),
}
PATHS = {  # of `audio.VERSIONS`
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
        made(name),
        Canary.from_json(recorded),
        versions=_packaged()["versions"],
        since="it was released",
        advice=ADVICE,
    )


@cache
def made(name: str) -> Canary:
    """What one of `names` makes of the canary here."""
    return Canary.of(_compute(name))


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


def of_recipe(recipe: Recipe) -> dict[str, Canary]:
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
    yield from ((f"decode {codec}", audio.VERSIONS[path]) for codec, path in PATHS.items())
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
