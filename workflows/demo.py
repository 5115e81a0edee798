"""The demo behind `make demo`: from no audio to a trained classifier.

It synthesises a small labelled corpus in four formats with one broken file, builds its log-mel
feature set, and trains a classifier on the pooled features. A second run finds everything done.
"""

import sys
from pathlib import Path
from typing import Any

import luigi
import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from basilar import FeatureSet
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.recipes.hashes import recipe_hashes
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import atomic, files
from basilar.workflows.build_feature_set import BuildFeatureSet

Sound = NDArray[Any]
SAMPLE_RATE = 22050  # Hz
CLIPS_PER_LABEL = 40
# No Ogg: every file written gets a random serial number, which changes its hash and its split.
FORMATS = (("wav", "WAV"), ("flac", "FLAC"), ("aiff", "AIFF"), ("mp3", "MP3"))
SPLIT = {"train": 0.75, "test": 0.25}


def tone(rng: np.random.Generator, t: Sound) -> Sound:
    """A steady tone with a few harmonics."""
    f0 = rng.uniform(110, 880)
    harmonics = np.array([[1.0], [2.0], [3.0]])
    return np.asarray((np.sin(2 * np.pi * f0 * harmonics * t) / harmonics).sum(axis=0) / 2)


def chord(rng: np.random.Generator, t: Sound) -> Sound:
    """A major or minor triad."""
    f0 = rng.uniform(110, 440)
    ratios = np.array([[1.0], [1.25 if rng.random() < 0.5 else 1.2], [1.5]])
    return np.asarray(np.sin(2 * np.pi * f0 * ratios * t).mean(axis=0))


def chirp(rng: np.random.Generator, t: Sound) -> Sound:
    """A tone that rises or falls through several octaves."""
    start, octaves = rng.uniform(100, 400), rng.uniform(2, 4)
    phase = start * (2 ** (octaves * t / t[-1]) - 1) * t[-1] / (octaves * np.log(2))
    sweep = np.asarray(np.sin(2 * np.pi * phase))
    return sweep if rng.random() < 0.5 else sweep[::-1]


def drum(rng: np.random.Generator, t: Sound) -> Sound:
    """Bursts of noise that die away."""
    since_hit = t % (1 / rng.integers(2, 6))
    return rng.standard_normal(t.size) * np.exp(-since_hit * rng.uniform(15, 40)) / 4


SOUNDS = {"tones": tone, "chords": chord, "chirps": chirp, "drums": drum}


class Corpus(luigi.Task):
    """The audio: a folder for each label."""

    folder = luigi.PathParameter(absolute=True)

    def output(self) -> luigi.LocalTarget:
        """The folder of audio."""
        return luigi.LocalTarget(str(Path(self.folder) / "audio"))

    def run(self) -> None:
        """Write all clips, and one file that no decoder can read."""
        with atomic.replacing(Path(self.output().path)) as temporary:
            for number, (label, sound) in enumerate(SOUNDS.items()):
                (temporary / label).mkdir(parents=True)
                for i in range(CLIPS_PER_LABEL):
                    rng = np.random.default_rng([number, i])
                    t = np.arange(int(SAMPLE_RATE * rng.uniform(0.8, 1.6))) / SAMPLE_RATE
                    y = rng.uniform(0.1, 0.9) * sound(rng, t) + 0.005 * rng.standard_normal(t.size)
                    suffix, name = FORMATS[i % len(FORMATS)]
                    sf.write(temporary / label / f"{i:02}.{suffix}", y, SAMPLE_RATE, format=name)
            (temporary / "drums" / "broken.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt broken")


class DemoManifest(luigi.Task):
    """The manifest of the corpus, labelled by folder."""

    folder = luigi.PathParameter(absolute=True)

    def requires(self) -> Corpus:
        """The audio."""
        return Corpus(folder=self.folder)

    def output(self) -> luigi.LocalTarget:
        """The manifest."""
        return luigi.LocalTarget(str(Path(self.folder) / "manifest.parquet"))

    def run(self) -> None:
        """Scan the audio."""
        manifest = scan(Path(self.input().path), label="parent", split=SPLIT)
        manifest.write(Path(self.output().path))


class DemoClassifier(luigi.Task):
    """A classifier of the labels, trained on the feature set's train split."""

    folder = luigi.PathParameter(absolute=True)
    recipe = luigi.PathParameter(absolute=True)

    def requires(self) -> DemoManifest:
        """The manifest, without which the feature set cannot be planned."""
        return DemoManifest(folder=self.folder)

    def output(self) -> luigi.LocalTarget:
        """The result, under the hash of the recipe."""
        recipe_hash = recipe_hashes(Recipe.load(self.recipe))["normalization"]
        return luigi.LocalTarget(str(Path(self.folder) / f"classifier-{recipe_hash[:12]}.json"))

    def run(self) -> Any:
        """Build the feature set, then train on it."""
        features = BuildFeatureSet(
            recipe=self.recipe, manifest=self.input().path, root=Path(self.folder) / "root"
        )
        yield features
        fs = FeatureSet.open(features.output().path)
        accuracy, held_out = train(fs)
        result = {"accuracy": accuracy, "held_out": held_out, "path": str(fs.path)}
        files.write_json(Path(self.output().path), result)


def train(fs: FeatureSet) -> tuple[float, int]:
    """Train a linear classifier of pooled features: accuracy and size of the test split."""
    from sklearn.linear_model import LogisticRegression

    normalized = [fs.normalize(x) for x in fs]
    pooled = np.stack([np.concatenate([x.mean(axis=0), x.std(axis=0)]) for x in normalized])
    train_rows, labels = (fs.clips["split"] == "train").to_numpy(), fs.clips["label"].to_numpy()
    model = LogisticRegression(max_iter=1000).fit(pooled[train_rows], labels[train_rows])
    accuracy = float(model.score(pooled[~train_rows], labels[~train_rows]))
    return accuracy, int((~train_rows).sum())


def main() -> int:
    """Run the demo in ./demo and print the result; returns the exit code."""
    recipe = Path(__file__).parents[1] / "params" / "log_mel.toml"
    task = DemoClassifier(folder=Path("demo"), recipe=recipe)
    cached = task.complete()
    if not cached and not luigi_engine.run_luigi(task, workers=2).succeeded:
        return 1
    result = files.read_json(Path(task.output().path))
    fs = FeatureSet.open(result["path"])
    lost = ", ".join(fs.quarantine["id"])
    print(f"{'all cache hits, nothing was computed' if cached else 'built and trained'}")
    print(f"  accuracy     {result['accuracy']:.3f} on {result['held_out']} held-out clips")
    print(f"  clips        {len(fs)} (quarantined: {lost})")
    print(f"  path         {fs.path}")
    print(f"  key          {fs.key}")
    print(f"  digest       {fs.digest}")
    print("  see its run  .venv/bin/basilar ui --root demo/root")
    return 0


if __name__ == "__main__":
    sys.exit(main())
