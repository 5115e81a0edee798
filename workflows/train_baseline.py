"""Train a small classifier of speech on a feature set, as a Luigi workflow.

    python -m luigi --module basilar.workflows.train_baseline TrainBaseline \
        --recipe params/log_mel_speech.toml --manifest manifest.parquet --root features \
        --local-scheduler

The model is a support vector machine on 16 cepstra of 32 frames. It is measured twice, and the two
numbers answer different questions: on a random fifth of the files, whose speakers it knows, and on
each group (speaker) in turn, trained on the others. The random fifth is drawn here, since a
manifest's split keeps groups together. The settings below were chosen by both numbers on the spoken
digits of FSDD: for new speakers, expect less than the second number.

The feature set's own statistics, fitted on its train split, are not used: features are read as they
are stored, and the `StandardScaler` of each model is fitted on the clips it trains on. Unknown
speakers have other levels and microphones, so training clips are repeated with random ones
(`augment`).

Copy this file to make a training of your own: change `augment`, `vector` and `model`, and raise
`VERSION`, so that results get new addresses.
"""

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi
import numpy as np
from luigi.parameter import ParameterVisibility
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.ndimage import map_coordinates, uniform_filter1d

from basilar import FeatureSet, Loader
from basilar.pipeline import storage
from basilar.pipeline.build.build import Build
from basilar.pipeline.build.shard_tasks import Target
from basilar.pipeline.hashing import hash_of
from basilar.pipeline.storage import files
from basilar.workflows.build_feature_set import BuildFeatureSet, PlaceParameter

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

VERSION = 1  # of the training below
FRAMES, CEPSTRA = 32, 16
Array = NDArray[Any]


class FitBaseline(luigi.Task):
    """The result of training on a feature set: accuracies, and the clips they were measured on."""

    recipe = luigi.PathParameter(description="recipe (TOML) for a log-mel in dB")
    manifest = PlaceParameter(description="manifest (Parquet) with labels, and groups")
    root = PlaceParameter(absolute=True, description="folder or URL for artifacts and feature sets")
    tracking_uri = luigi.Parameter(
        default=os.environ.get("MLFLOW_TRACKING_URI", ""),
        significant=False,
        visibility=ParameterVisibility.HIDDEN,  # it may hold a password
        description="MLflow tracker; default: under the root",
    )
    seed = luigi.IntParameter(default=0, description="seed of the random fifth and of augmentation")
    copies = luigi.IntParameter(default=4, description="augmented copies of each training clip")

    def requires(self) -> luigi.Task:
        """The feature set."""
        features: luigi.Task = self.clone(BuildFeatureSet)
        return features

    @property
    def build(self) -> Build:
        """The build of the feature set."""
        planned: Build = self.clone(BuildFeatureSet).planned
        return planned

    @property
    def parameters(self) -> dict[str, int]:
        """Everything besides the feature set that determines the result."""
        return {"version": VERSION, "seed": self.seed, "copies": self.copies}

    @property
    def address(self) -> str:
        """The feature set's key, and the hash of the parameters."""
        return f"{self.build.plan.key}-{hash_of('baseline', **self.parameters)[:12]}"

    @property
    def result(self) -> Path:
        """The file of the result."""
        path: Path = self.root / "results" / f"{self.address}.json"
        return path

    def output(self) -> luigi.LocalTarget:
        """The result."""
        return Target(storage.name(self.result))

    def run(self) -> None:
        """Train and measure."""
        if storage.exists(self.result):
            return
        fs = FeatureSet.open(self.build.store)
        measured = evaluate(fs, seed=self.seed, copies=self.copies)
        files.write_json(
            self.result, {"feature_set": fs.key, "parameters": self.parameters, **measured}
        )


class TrainBaseline(FitBaseline):
    """The result, and its run in MLflow.

    If the tracker does not answer, nothing fails: the result is kept, and the next run of this
    workflow only logs it.
    """

    def requires(self) -> luigi.Task:
        """The result."""
        fitted: luigi.Task = self.clone(FitBaseline)
        return fitted

    def output(self) -> luigi.LocalTarget:
        """The id of the run, one for each tracker."""
        tracker = hash_of("tracker", uri=self.build.tracking_uri)[:8]
        return Target(storage.name(self.root / "runs" / f"{self.address}-{tracker}.json"))

    def run(self) -> None:
        """Log the result."""
        from basilar.pipeline import errors
        from basilar.pipeline.tracking import runs

        result, build = files.read_json(self.result), self.build
        for name, value in metrics(result).items():
            print(f"{name} {value:.3f}")
        print(f"the whole result is in {storage.name(self.result)}")
        try:
            run_id = runs.log_training(
                build.store,
                build.tracking_uri,
                folder=build.root / "mlflow",
                name=f"baseline {self.address}",
                parameters={"task": "TrainBaseline", **self.parameters},
                metrics=metrics(result),
            )
        except errors.TrackerError as error:
            logging.getLogger("basilar").warning(
                "not logged to MLflow: %s; %s is kept, run again to log it",
                error,
                storage.name(self.result),
            )
            return
        marker = {"run_id": run_id, "uri": storage.shown(build.tracking_uri)}
        files.write_json(storage.place(self.output().path), marker)


def evaluate(fs: FeatureSet, *, seed: int, copies: int) -> dict[str, Any]:
    """Accuracy on a random fifth of the files, and on each group with a model of the others.

    Without groups, `leave_one_group_out` is None. Raises ValueError for a feature set that is not
    a log-mel in dB, or has fewer than two labels.
    """
    representation = fs.recipe["representation"]
    if (representation["kind"], representation.get("log")) != ("log_mel", "db"):
        raise ValueError(
            f"{fs.path}: the baseline's augmentation is in dB and needs a recipe of kind log_mel "
            'with log = "db", such as params/log_mel_speech.toml'
        )
    if len(fs.labels) < 2:
        raise ValueError(
            f"{fs.path}: {len(fs.labels)} labels, and a classifier needs two; label the clips: "
            "basilar scan --label"
        )
    fs = fs.select(label=fs.labels)
    x, y = vectors(fs, seed=seed, copies=copies), fs.label_codes
    groups = fs.clips["group"]
    names = sorted(groups.dropna().unique())
    by_group = {name: measure(x, y, (groups == name).to_numpy()) for name in names}
    accuracies = [score["accuracy"] for score in by_group.values()]
    return {
        "random_fifth": measure(x, y, random_fifth(fs.clips["sha256"].to_numpy(), seed)),
        "leave_one_group_out": {"accuracy": float(np.mean(accuracies)), "groups": by_group}
        if len(names) > 1
        else None,
    }


def random_fifth(files: Array, seed: int) -> NDArray[np.bool_]:
    """The mask of held-out clips: those of a fifth of the files, so no file is on both sides."""
    names, file_of_clip = np.unique(files, return_inverse=True)
    chosen = np.random.default_rng(seed).permutation(len(names))[: len(names) // 5]
    return np.isin(file_of_clip, chosen)


def measure(x: Array, y: Array, test: NDArray[np.bool_]) -> dict[str, Any]:
    """Train a model on all clips but the `test` ones, with all copies, and measure it on these.

    `x` is (1 + copies, clips, values), the clips themselves first, and `y` (clips,).
    """
    started = time.perf_counter()
    train = ~test
    fitted = model().fit(np.concatenate(x[:, train]), np.tile(y[train], len(x)))
    return {
        "accuracy": float(fitted.score(x[0, test], y[test])),
        "train": int(train.sum()),
        "test": int(test.sum()),
        "seconds": time.perf_counter() - started,
    }


def metrics(result: dict[str, Any]) -> dict[str, float]:
    """The accuracies of a result by their names in MLflow."""
    named = {"accuracy_random_fifth": result["random_fifth"]["accuracy"]}
    if (left_out := result["leave_one_group_out"]) is not None:
        named["accuracy_leave_one_group_out"] = left_out["accuracy"]
        for name, score in left_out["groups"].items():
            named[f"accuracy_leave_out_{name}"] = score["accuracy"]
    return named


def model() -> "Pipeline":
    """An untrained classifier of vectors."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(C=4))


def vectors(fs: FeatureSet, *, seed: int, copies: int) -> Array:
    """Each clip, and its augmented copies, as vectors: (1 + copies, clips, values).

    `Loader` yields whole clips in the order of `fs`, with a new augmentation in each epoch.
    """
    plain = Loader(fs, batch_size=64, shuffle=False, normalize=False)
    augmented = Loader(
        fs, batch_size=64, shuffle=False, normalize=False, seed=seed, augment=augment
    )
    return np.stack([_epoch(plain), *(_epoch(augmented) for _ in range(copies))])


def _epoch(loader: Loader) -> Array:
    return np.stack(
        [
            vector(x[:frames])
            for batch in loader
            for x, frames in zip(batch["features"], batch["n_frames"], strict=True)
        ]
    )


def vector(x: Array) -> Array:
    """The clip without the silence around it, as 16 cepstra of 32 frames: (512,).

    Frames are interpolated, so that long and short words get the same length.
    """
    level = uniform_filter1d(x.mean(axis=1), 5, mode="nearest")
    loud = np.flatnonzero(level >= level.min() + 0.35 * np.ptp(level))
    first, last = max(0, loud[0] - 3), min(len(x) - 1, loud[-1] + 3)
    scaled = _interpolate(x, np.linspace(first, last, FRAMES), np.arange(x.shape[1]))
    cepstra: Array = dct(scaled, axis=1, norm="ortho")[:, :CEPSTRA]
    return cepstra.ravel()


def augment(x: Array, rng: np.random.Generator) -> Array:
    """The clip (frames, bins) in dB as another speaker through another microphone might sound.

    Frequencies are stretched and moved along the mel axis, as by a vocal tract of another length;
    time runs unevenly; and a random smooth curve is added to all frames: level, tilt, and so on.
    """
    frames, bins = x.shape
    middle, time_of_frame = (bins - 1) / 2, np.linspace(0, 1, frames)
    columns = middle + rng.uniform(0.9, 1.1) * (np.arange(bins) - middle) + rng.uniform(-2, 2)
    bent = time_of_frame + rng.uniform(-0.1, 0.1) * np.sin(np.pi * time_of_frame)
    order = np.arange(CEPSTRA)[:, None]
    waves = np.cos(np.pi * order * (np.arange(bins) + 0.5) / bins)
    deviation = np.where(order == 0, 5.0, 7.0 / (1 + order / 2))  # dB
    curve = (rng.standard_normal((CEPSTRA, 1)) * deviation * waves).sum(axis=0)
    augmented: Array = _interpolate(x, bent * (frames - 1), columns) + curve.astype(np.float32)
    return augmented


def _interpolate(x: Array, rows: Array, columns: Array) -> Array:
    """`x` interpolated linearly at rows and columns; its border values are repeated outside."""
    places = np.meshgrid(rows, columns, indexing="ij")
    interpolated: Array = map_coordinates(x, places, order=1, mode="nearest")
    return interpolated
