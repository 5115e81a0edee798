"""Make a bundle of a published feature set; `deployment.bundle` reads it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from basilar.pipeline.compute import canary, stages
from basilar.pipeline.compute.guard import guard
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.deployment.bundle import INDEX, Bundle, Index, encode_index
from basilar.pipeline.errors import BundleError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.storage import atomic
from basilar.pipeline.training.feature_set import FeatureSet

_RATES = (44_100, 48_000)  # Hz, that the canary is transformed from, beside the recipe's own
_FILE = ("golden/canary.flac", 16_000)  # and its rate, Hz
_LONG = 30.0  # seconds; longer clips make poor golden vectors
_README = """\
# Bundle of the feature set {key}

This folder computes the features that the feature set `{short}` ({kind}) was trained on, with the
same bits, from a signal or an audio file. It holds data only: no code, and nothing pickled.

Use it where Basilar {basilar} is installed; of its dependencies, NumPy, soxr, soundfile,
PyAV and Pydantic are enough:

    from basilar import Bundle

    bundle = Bundle.load("this folder")
    features = bundle.transform(y, sample_rate=44100)   # ({columns} columns, a row a frame)
    features = bundle.transform_file("clip.flac")

Check it: `basilar check-bundle DIR`, or `python -m basilar check-bundle DIR`. It computes every
golden vector in `golden/` (audio in, features out) and exits with 1 if one moved or if a file is
damaged.

`bundle.json` holds the recipe, the labels, the versions it was made with, and the SHA-256 of every
file. Features are {normalization}
"""


class _Vector(NamedTuple):
    name: str
    file: str
    audio: NDArray[np.float32]
    sample_rate: int
    features: NDArray[Any]


def write_bundle(folder: Path, fs: FeatureSet, *, manifest: Manifest, clips: int) -> None:
    """Write the bundle of a feature set as a new folder.

    `clips` of its clips become golden vectors, too: their audio, found by the `manifest`, goes into
    the bundle. Raises FileExistsError; OSError or ChangedAudioError for audio that is not what the
    manifest says; CanaryError; BundleError if what is stored is not what is computed here.
    """
    if folder.exists():
        raise FileExistsError(f"{folder}: there already; name another folder, or delete it")
    transform = Transform(fs.typed_recipe)
    guard(transform.recipe)
    with atomic.replacing(folder) as temporary:
        (temporary / "golden").mkdir(parents=True)
        for name in ("centre", "scale"):
            _save(temporary / f"{name}.npy", fs.stats[name])
        vectors = []
        for vector in (*_of_canary(fs, transform), *_of_clips(fs, transform, manifest, clips)):
            encodes = vector.file.endswith(".flac")
            if encodes:
                pcm = (vector.audio * 32768).astype(np.int16)
                sf.write(temporary / vector.file, pcm, vector.sample_rate)
            else:
                _save(temporary / vector.file, vector.audio)
            features = f"{vector.file}.features.npy"
            _save(temporary / features, vector.features)
            vectors.append(
                {
                    "name": vector.name,
                    "audio": vector.file,
                    "sample_rate": None if encodes else vector.sample_rate,
                    "features": features,
                }
            )
        _write_readme(temporary / "README.md", fs, transform)
        _write_index(temporary, fs, vectors)
        for golden in Bundle.load(temporary).check():
            if not golden.identical:
                raise BundleError(
                    f"{fs.path}: {golden.name}: what is stored and what is computed here differ by "
                    f"up to {golden.difference}; basilar verify {fs.key[:12]} says more, and "
                    "--clips 0 leaves out clips"
                )


def _of_canary(fs: FeatureSet, transform: Transform) -> Iterator[_Vector]:
    """The canary at several rates, and as a file, whose 16 bits hold it exactly."""
    rate, count = transform.sample_rate, canary.n_samples(transform.recipe)
    sources = [
        (f"canary at {source_rate} Hz", f"golden/canary_{source_rate}.npy", source_rate)
        for source_rate in dict.fromkeys((*_RATES, rate))
    ]
    for name, file, source_rate in (*sources, ("canary as a file", *_FILE)):
        y = canary.signal(-(-count * source_rate // rate))
        features = fs.normalize(transform.apply(y, sample_rate=source_rate))
        yield _Vector(name, file, y, source_rate, features)


def _of_clips(
    fs: FeatureSet, transform: Transform, manifest: Manifest, count: int
) -> Iterator[_Vector]:
    """The first clips of the set, which are random ones, with what is stored of them."""
    seconds = fs.clips["duration"].to_numpy()
    chosen = np.argsort(np.maximum(seconds, _LONG), kind="stable")[:count]
    row_of = {content: row for row, content in enumerate(manifest.contents)}
    names = ("path", "sha256", "offset", "duration")
    columns = [manifest.column(name) for name in names] if count else []
    for number, i in enumerate(chosen.tolist()):
        content = fs.clips["content"][i]
        source = Source(content, *(column[row_of[content]] for column in columns))
        decoded = stages.decode([source], transform, root=manifest.root)
        y, sample_rate = np.array(decoded.signals[0]), decoded.clips[0].sample_rate
        name, file = f"clip {fs.clips['id'][i]}", f"golden/clip_{number}.npy"
        yield _Vector(name, file, y, sample_rate, fs.normalize(fs[i]))


def _save(file: Path, values: NDArray[Any]) -> None:
    np.save(file, np.ascontiguousarray(values), allow_pickle=False)


def _write_readme(file: Path, fs: FeatureSet, transform: Transform) -> None:
    normalization = transform.recipe.normalization
    kind = f"`(x - centre) / scale`, float32: {normalization.kind} normalization."
    text = _README.format(
        key=fs.key,
        short=fs.key[:12],
        kind=transform.recipe.representation.kind,
        basilar=fs.attributes["versions"]["basilar"],
        columns=fs.n_bins,
        normalization="as they are stored." if normalization.kind == "none" else kind,
    )
    file.write_text(text, "utf-8")


def _write_index(folder: Path, fs: FeatureSet, vectors: list[dict[str, Any]]) -> None:
    names = ("key", "digest", "recipe", "recipe_hash", "op_versions", "canary", "versions")
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    index = {
        **{name: fs.attributes[name] for name in names},
        "schema_version": 1,
        "labels": fs.labels,
        "vectors": vectors,
        "files": files,
    }
    Index.model_validate(index)
    index["sha256"] = hashlib.sha256(encode_index(index)).hexdigest()
    (folder / INDEX).write_bytes(encode_index(index))
