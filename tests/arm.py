"""What must be the same on x86-64 and on 64-bit Arm: `python -m tests.arm FOLDER` prints it.

The first run makes a set and a bundle in the folder, the others reproduce and check them. Run by
`make bits-arm`, on this machine and in an emulated user space.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from basilar import Bundle, FeatureSet, Transform
from basilar.pipeline.audit.reproduce import reproduce
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.compute.here import plan_here
from basilar.pipeline.deployment.bundle import verdict_of
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.process import configure
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import find_record, recorded_keys

REPOSITORY = Path(__file__).resolve().parents[1]
CORPORA = Path(os.environ.get("CORPORA", REPOSITORY.parent / "shared" / "corpora"))
SECONDS = 2.0


def audio() -> list[Path]:
    """Real WAV and FLAC files of several rates."""
    found = sorted([*CORPORA.glob("music/*.wav"), *CORPORA.glob("music/*.flac")])
    if not found:
        raise SystemExit(f"{CORPORA}: no music is there; set CORPORA")
    return found[:4] + found[-4:]


def seconds_of(path: Path) -> float:
    return min(SECONDS, float(sf.info(path).duration))


def digest_of(arrays: Iterator[NDArray[np.generic]]) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


def recipes() -> Iterator[tuple[str, str]]:
    """The digests of every shipped recipe, whole and streamed.

    For those with soxr, samples count as if they had the recipe's rate: nothing is resampled.
    """
    for file in sorted((REPOSITORY / "params").glob("*.toml")):
        transform = Transform.from_recipe(file)
        signals = [transform.decode(path, duration=seconds_of(path)) for path in audio()]
        if transform.recipe.resample.method == "soxr":
            signals = [(y, transform.sample_rate) for y, _ in signals]
        yield file.stem, digest_of(transform.apply(y, sample_rate=rate) for y, rate in signals)
        if transform.recipe.representation.is_framewise:
            yield f"{file.stem}, streamed", digest_of(streamed(transform, *signals[0]))


def streamed(
    transform: Transform, y: NDArray[np.float32], rate: int
) -> Iterator[NDArray[np.generic]]:
    stream = transform.stream(rate)
    for start in range(0, y.size, 1000):
        yield stream.push(y[start : start + 1000])
    yield stream.finish()


def made(root: Path, manifest: Manifest) -> Build:
    recipe = Recipe.load("log_mel")
    plan = plan_here(recipe, manifest, 600.0, root=root)
    build = Build(root=root, plan=plan, tracking_uri=f"sqlite:///{root}.db")
    outcome = luigi_engine.run(build, workers=1, log=False)
    assert outcome.succeeded, outcome.reasons
    return build


def builds(folder: Path) -> Iterator[tuple[str, str]]:
    """A small build; and what an earlier run has built and bundled, reproduced and checked."""
    files = folder / "audio"
    if not files.exists():
        files.mkdir()
        for i, path in enumerate(audio()[:4]):
            y, rate = sf.read(path, frames=20_000, dtype="int16")
            sf.write(files / f"{i}.{'wav' if i % 2 else 'flac'}", y, rate, subtype="PCM_16")
        build = made(folder / "root", scan(files))
        fs = FeatureSet.open(build.store)
        write_bundle(folder / "bundle", fs, manifest=build.plan.manifest, clips=2)
    with tempfile.TemporaryDirectory() as own:
        build = made(Path(own) / "root", scan(files))
        yield "key of a build", build.plan.key
        yield "digest of a build", FeatureSet.open(build.store).digest
    (key,) = recorded_keys(folder / "root")
    yield "reproduce", reproduce(find_record(folder / "root", key), audio_root=files).verdict
    yield "bundle", verdict_of(Bundle.load(folder / "bundle").check())


def main() -> None:
    configure()
    found = dict(recipes())
    if os.environ.get("BASILAR_KERNEL", "") == "":
        found |= builds(Path(sys.argv[1]))
        assert (found["reproduce"], found["bundle"]) == ("identical", "identical")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
