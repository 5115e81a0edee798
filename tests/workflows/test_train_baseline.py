import json
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.storage import files
from basilar.workflows import train_baseline
from basilar.workflows.build_feature_set import BuildFeatureSet
from basilar.workflows.train_baseline import TrainBaseline
from tests.conftest import REPOSITORY

PARAMS = REPOSITORY / "params"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A root, and the manifest of two labels by three speakers, five tones each."""
    folder = tmp_path_factory.mktemp("made_up")
    (folder / "audio").mkdir()
    rng, t = np.random.default_rng(0), np.arange(3200) / 8000
    for label, pitch in (("low", 500), ("high", 1500)):
        for speaker in ("ann", "bob", "cy"):
            for i in range(5):
                y = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * t)
                file = folder / "audio" / f"{label}_{speaker}_{i}.wav"
                sf.write(file, y, 8000, subtype="PCM_16")
    return folder / "root", manifest_of(folder / "audio", group="_([a-z]+)_")


def manifest_of(audio, *, label="^([a-z0-9]+)_", group=None):
    manifest = scan(audio, label=label, group=group)
    name = "".join(c for c in f"{label}{group}" if c.isalnum())
    manifest.write(audio.parent / f"{name}.parquet")
    return audio.parent / f"{name}.parquet"


def command(manifest, root, *options):
    return subprocess.run(
        [
            *(sys.executable, "-m", "luigi", "--module", "basilar.workflows.train_baseline"),
            *("TrainBaseline", "--recipe", str(PARAMS / "log_mel_speech.toml")),
            *("--manifest", str(manifest), "--root", str(root), "--local-scheduler", *options),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )


def feature_set(manifest, root, tracker, recipe="log_mel_speech"):
    task = BuildFeatureSet(
        recipe=PARAMS / f"{recipe}.toml", manifest=manifest, root=root, tracking_uri=tracker
    )
    assert luigi_engine.run_luigi(task, workers=1).succeeded
    return FeatureSet.open(task.output().path)


@pytest.fixture
def client(tracker):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracker)


@pytest.mark.slow
def test_spoken_digits_of_known_and_of_unknown_speakers(
    corpora, tmp_path, tracker, client, monkeypatch
):
    manifest = scan(corpora / "speech" / "fsdd", label=r"^(\d)_", group="_([a-z]+)_")
    manifest.write(tmp_path / "fsdd.parquet")
    task = TrainBaseline(
        recipe=PARAMS / "log_mel_speech.toml",
        manifest=tmp_path / "fsdd.parquet",
        root=tmp_path / "root",
        tracking_uri=tracker,
    )
    assert luigi_engine.run_luigi(task, workers=1).succeeded
    result = files.read_json(task.result)
    known, unknown = result["random_fifth"], result["leave_one_group_out"]
    assert (known["train"], known["test"]) == (800, 200)
    assert known["accuracy"] >= 0.95
    assert set(unknown["groups"]) == {"george", "jackson", "lucas", "nicolas"}
    assert {(s["train"], s["test"]) for s in unknown["groups"].values()} == {(750, 250)}
    assert unknown["accuracy"] >= 0.7  # 0.66 without augmented copies; by chance 0.1
    assert min(score["accuracy"] for score in unknown["groups"].values()) >= 0.55

    run = client.get_run(files.read_json(Path(task.output().path))["run_id"])
    assert run.data.metrics["accuracy_random_fifth"] == known["accuracy"]
    assert run.data.metrics["accuracy_leave_one_group_out"] == unknown["accuracy"]
    assert run.data.metrics["accuracy_leave_out_george"] == unknown["groups"]["george"]["accuracy"]
    assert run.data.params == {"task": "TrainBaseline", "version": "1", "seed": "0", "copies": "4"}
    key = run.data.tags["basilar.feature_set"]
    assert key == result["feature_set"] == task.build.plan.key
    of_the_set = client.search_runs([run.info.experiment_id], f"tags.`basilar.key` = '{key}'")
    assert [r.info.run_name for r in of_the_set] == [f"log_mel_speech {key[:12]}"]

    monkeypatch.setattr(train_baseline, "evaluate", None)  # would fail if it were called
    assert task.complete()
    assert luigi_engine.run_luigi(task, workers=1).succeeded
    task.requires().run()
    assert files.read_json(task.result) == result


@pytest.mark.torture
def test_a_dead_tracker_loses_no_result(made_up, tmp_path, tracker, client):
    _, manifest = made_up
    root = tmp_path / "root"
    dead = command(manifest, root, "--tracking-uri", DEAD, "--copies", "1")
    assert dead.returncode == 0, dead.stderr
    (result,) = (root / "results").glob("*.json")
    assert f"{result} is kept, run again to log it" in dead.stderr
    measured = json.loads(result.read_text())["random_fifth"]
    assert measured["test"] == 6
    assert f"accuracy_random_fifth {measured['accuracy']:.3f}\n" in dead.stdout
    trained = result.stat().st_mtime_ns
    alive = command(manifest, root, "--tracking-uri", tracker, "--copies", "1")
    assert alive.returncode == 0, alive.stderr
    (marker,) = (root / "runs").glob(f"{result.stem}-*.json")
    run = client.get_run(json.loads(marker.read_text())["run_id"])
    assert run.data.tags["basilar.training"] == f"baseline {result.stem}"
    again = command(manifest, root, "--tracking-uri", tracker, "--copies", "1")
    assert "1 complete ones were encountered" in again.stderr
    assert result.stat().st_mtime_ns == trained


def test_the_root_may_be_a_url(made_up, tracker, client, monkeypatch, capsys):
    _, manifest = made_up
    monkeypatch.setattr(train_baseline, "evaluate", lambda fs, **_: {"clips": len(fs), **RESULT})
    task = TrainBaseline(
        recipe=PARAMS / "log_mel_speech.toml",
        manifest=manifest,
        root="memory://trained/root",
        tracking_uri=tracker,
    )
    store = fsspec.filesystem("memory")
    try:
        assert luigi_engine.run_luigi(task, workers=1).succeeded
        where = f"/trained/root/results/{task.address}.json"
        assert json.loads(store.cat_file(where))["clips"] == 30
        assert f"the whole result is in memory:/{where}" in capsys.readouterr().out
        (marker,) = store.glob(f"/trained/root/runs/{task.address}-*.json")
        run = client.get_run(json.loads(store.cat_file(marker))["run_id"])
        assert run.data.metrics == {"accuracy_random_fifth": 0.5}
        monkeypatch.setattr(train_baseline, "evaluate", None)
        assert task.complete()
    finally:
        store.rm("/trained", recursive=True)


RESULT = {"random_fifth": {"accuracy": 0.5}, "leave_one_group_out": None}


@pytest.mark.torture
def test_a_failed_training_fails_the_command(made_up, tmp_path, tracker):
    _, manifest = made_up
    unlabelled = manifest_of(manifest.parent / "audio", label=None)
    failed = command(unlabelled, tmp_path / "root", "--tracking-uri", tracker)
    assert failed.returncode == 1
    assert "label the clips: basilar scan --label" in failed.stderr
    assert not (tmp_path / "root" / "results").exists()


def test_what_determines_the_result_is_in_its_address(made_up):
    root, manifest = made_up
    other = manifest_of(manifest.parent / "audio", group=None)
    recipe = PARAMS / "log_mel_speech.toml"
    tasks = [
        TrainBaseline(recipe=recipe, manifest=manifest, root=root),
        TrainBaseline(recipe=recipe, manifest=manifest, root=root, seed=1),
        TrainBaseline(recipe=recipe, manifest=manifest, root=root, copies=5),
        TrainBaseline(recipe=recipe, manifest=other, root=root),
        TrainBaseline(recipe=PARAMS / "log_mel.toml", manifest=manifest, root=root),
    ]
    assert len({task.result for task in tasks}) == len({t.output().path for t in tasks}) == 5
    elsewhere = TrainBaseline(recipe=recipe, manifest=manifest, root=root, tracking_uri=DEAD)
    assert elsewhere.result == tasks[0].result
    assert elsewhere.output().path != tasks[0].output().path


class Spy:
    """A model that remembers what it was trained and measured on."""

    def __init__(self):
        self.trained, self.tested = [], []

    def fit(self, x, y):
        self.trained = x[:, 0].tolist()
        return self

    def score(self, x, y):
        self.tested = x[:, 0].tolist()
        return 0.5


def test_no_clip_and_no_speaker_is_on_both_sides(made_up, tracker, monkeypatch):
    root, manifest = made_up
    fs = feature_set(manifest, root, tracker)
    spies = []
    monkeypatch.setattr(train_baseline, "model", lambda: spies.append(Spy()) or spies[-1])
    numbered = np.arange(30.0)[None, :, None].repeat(3, axis=0)  # a vector is its clip's number
    monkeypatch.setattr(train_baseline, "vectors", lambda fs, *, seed, copies: numbered)
    result = train_baseline.evaluate(fs, seed=0, copies=2)
    speakers = [set(fs.clips["group"].iloc[np.array(s.tested, int)]) for s in spies]
    one, mixed = [s for s in speakers if len(s) == 1], [s for s in speakers if len(s) > 1]
    assert one == [{"ann"}, {"bob"}, {"cy"}]
    assert len(mixed) == 1  # the random fifth
    for spy in spies:
        assert not set(spy.trained) & set(spy.tested)
        assert sorted(spy.trained) == sorted(3 * list(set(range(30)) - set(spy.tested)))
        heard = fs.clips["group"].iloc[np.array(spy.trained, int)]
        tested = set(fs.clips["group"].iloc[np.array(spy.tested, int)])
        assert len(tested) > 1 or not tested & set(heard)
    assert result["random_fifth"].keys() == {"accuracy", "train", "test", "seconds"}
    assert set(result["leave_one_group_out"]["groups"]) == {"ann", "bob", "cy"}


def test_the_same_seed_gives_the_same_result(made_up, tracker):
    root, manifest = made_up
    fs = feature_set(manifest, root, tracker)
    first, second = (train_baseline.vectors(fs, seed=3, copies=2) for _ in range(2))
    assert first.shape == (3, 30, 512)
    assert np.array_equal(first, second)
    other = train_baseline.vectors(fs, seed=4, copies=2)
    assert np.array_equal(first[0], other[0])  # the clips themselves
    assert not np.isclose(first[1], other[1]).all(axis=1).any()
    assert not np.isclose(first[1], first[2]).all(axis=1).any()


def test_without_groups_only_the_random_fifth_is_measured(made_up, tracker):
    root, manifest = made_up
    fs = feature_set(manifest_of(manifest.parent / "audio"), root, tracker)
    result = train_baseline.evaluate(fs, seed=0, copies=1)
    assert result["leave_one_group_out"] is None
    assert train_baseline.metrics(result) == {"accuracy_random_fifth": 1.0}


def test_recipes_that_are_not_in_decibels_are_refused(made_up, tracker):
    root, manifest = made_up
    fs = feature_set(manifest, root, tracker, recipe="kaldi_fbank")
    with pytest.raises(ValueError, match=r'kind log_mel with log = "db"'):
        train_baseline.evaluate(fs, seed=0, copies=1)


def test_excerpts_of_one_file_stay_together():
    files = np.repeat([f"{i:02}" for i in range(20)], 3)
    held_out = train_baseline.random_fifth(files, seed=0)
    assert len(set(files[held_out])) == 4
    assert not set(files[held_out]) & set(files[~held_out])
    assert held_out.tolist() != train_baseline.random_fifth(files, seed=1).tolist()


def test_silence_around_a_word_changes_nothing():
    rng = np.random.default_rng(0)
    word = rng.uniform(-20, 0, (30, 40)).astype(np.float32)
    quiet = np.full((10, 40), -50, np.float32)
    alone = train_baseline.vector(np.concatenate([quiet, word, quiet]))
    late = train_baseline.vector(np.concatenate([quiet, quiet, word, quiet]))
    assert alone.shape == (512,)
    np.testing.assert_allclose(alone, late, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 50])
def test_short_and_silent_clips_have_vectors(frames):
    silent = np.full((frames, 40), -100, np.float32)
    rng = np.random.default_rng(0)
    assert np.isfinite(train_baseline.vector(silent)).all()
    augmented = train_baseline.augment(silent, rng)
    assert augmented.shape == silent.shape
    assert augmented.dtype == np.float32
    assert np.ptp(augmented, axis=0) == pytest.approx(0, abs=1e-3)  # one curve for all frames
    assert np.ptp(augmented, axis=1).min() > 1
