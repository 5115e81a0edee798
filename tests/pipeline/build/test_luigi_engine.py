"""Whole builds: the promises about keys, digests, and what is computed again."""

import contextlib
import ctypes
import faulthandler
import fcntl
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import luigi
import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline import audio
from basilar.pipeline.audit import garbage
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.build.set_tasks import Publish
from basilar.pipeline.build.shard_tasks import Represent
from basilar.pipeline.defaults import KEEP
from basilar.pipeline.errors import RecipeError
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.hashes import STAGES
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage.checksums import check_files
from basilar.pipeline.storage.files import read_table
from tests.conftest import REPOSITORY, SMALL
from tests.damage import flip

LOG_MEL = REPOSITORY / "params" / "log_mel.toml"


@pytest.fixture
def build(tmp_path):
    """Build a recipe over a manifest under the test's own root: (outcome, build)."""

    def run(recipe, manifest, *, root="root", workers=1, shard_seconds=600.0, to="", **options):
        plan = Plan(recipe, manifest, shard_seconds)
        planned = Build(root=tmp_path / root, plan=plan, tracking_uri=to, **options)
        return luigi_engine.run(planned, workers=workers, log=bool(to)), planned

    return run


@pytest.fixture(scope="session")
def fsdd(corpora):
    return scan(corpora / "speech" / "fsdd", label=r"^(\d)_", split={"train": 0.8, "test": 0.2})


def small(**representation):
    defaults = {"kind": "log_mel", "n_fft": 256, "hop_length": 64, "n_mels": 40}
    return Recipe.from_dict(
        {
            "resample": {"sample_rate": 16000},
            "representation": {**defaults, **representation},
            "normalization": {"split": "all"},
        }
    )


DIGEST = "652ee92066ac137729cf0a6622c710e4"  # of these clips by this recipe, on every machine


@pytest.mark.slow
def test_the_digest_of_real_speech_depends_on_nothing_but_recipe_and_data(build, fsdd):
    recipe = Recipe.load(LOG_MEL)
    compact = recipe.model_copy(
        update={"store": recipe.store.model_copy(update={"codec": "compact"})}
    )
    archive = recipe.model_copy(
        update={"store": recipe.store.model_copy(update={"codec": "archive"})}
    )
    variants = [
        (recipe, {"root": "one"}),
        (compact, {"root": "compact", "workers": 2, "shard_seconds": 60.0}),
        (archive, {"root": "archive", "keep": ("decode", "resample", "representation")}),
    ]
    found = set()
    for variant, options in variants:
        outcome, planned = build(variant, fsdd, **options)
        assert outcome.succeeded
        fs = FeatureSet.open(planned.store)
        assert len(fs) == 1000
        found.add((fs.key, fs.digest, fs.stats["mean"].tobytes(), fs.stats["std"].tobytes()))
    assert len(found) == 1
    assert found.pop()[1] == DIGEST
    shutil.rmtree(planned.root)
    _, planned = build(recipe, fsdd, root=planned.root.name, workers=2, shard_seconds=60.0)
    assert FeatureSet.open(planned.store).digest == DIGEST


def test_a_rerun_computes_nothing_and_logs_no_second_run(build, audio_folder, tracker):
    manifest = scan(audio_folder)
    first, planned = build(small(), manifest, shard_seconds=2.0, to=tracker)
    again, _ = build(small(), manifest, shard_seconds=2.0, to=tracker)
    assert first.computed == {s: len(planned.plan.shards) for s in first.computed}
    assert again.computed == {"decode": 0, "resample": 0, "representation": 0}
    assert again.shards_computed == 0
    assert first.mlflow_run_id == again.mlflow_run_id is not None


def test_a_build_may_end_with_the_feature_set_and_without_mlflow(tmp_path, audio_folder):
    planned = Build(root=tmp_path / "root", plan=Plan(small(), scan(audio_folder)), tracking_uri="")
    outcome = luigi_engine.run(planned, workers=1, log=False)
    assert outcome.succeeded
    assert outcome.mlflow_run_id is None
    made = {path.name for path in planned.root.iterdir()}
    assert made == {"artifacts", "catalogue", "features", "running", ".lock"}


def test_only_what_is_kept_stays(build, audio_folder):
    manifest = scan(audio_folder)
    for keep, left in (
        (("resample", "representation"), {"resample", "representation"}),
        (("representation",), {"representation"}),
        (("decode", "resample", "representation"), {"decode", "resample", "representation"}),
    ):
        _, planned = build(small(), manifest, root="".join(keep), keep=keep)
        stages = {p.parent.name for p in (planned.root / "artifacts").glob("[dr]e*/*")}
        assert stages == left


def test_touching_renaming_and_moving_recompute_no_shard(build, audio_folder, tmp_path):
    _, first = build(small(), scan(audio_folder), shard_seconds=1.0)
    for file in audio_folder.rglob("*.wav"):
        os.utime(file)
    moved = audio_folder.rename(tmp_path / "moved")
    (moved / "b" / "01.wav").rename(moved / "c" / "renamed.wav")
    outcome, second = build(small(), scan(moved), shard_seconds=1.0)
    assert outcome.shards_computed == 0
    one, two = FeatureSet.open(first.store), FeatureSet.open(second.store)
    assert one.key != two.key  # an id changed
    assert one.digest == two.digest
    shared = (second.store / "features" / "c" / "0" / "0").stat()
    assert shared.st_nlink == 3  # the shard and two sets


@pytest.mark.slow
def test_one_more_file_of_real_speech_recomputes_at_most_two_shards(build, corpora, tmp_path):
    folder = tmp_path / "speech"
    folder.mkdir()
    for file in (corpora / "speech" / "fsdd").glob("*_jackson_*.wav"):
        shutil.copy(file, folder)
    before = scan(folder)
    build(small(), before, shard_seconds=6.0)
    sf.write(folder / "new.wav", np.sin(np.arange(6000) / 7), 8000)
    outcome, planned = build(small(), scan(folder), shard_seconds=6.0, workers=2)
    assert outcome.succeeded
    assert len(planned.plan.shards) > 15
    assert all(1 <= count <= 2 for count in outcome.computed.values())


def test_another_mel_setting_decodes_and_resamples_nothing(build, audio_folder):
    manifest = scan(audio_folder)
    build(small(), manifest, shard_seconds=2.0)
    outcome, planned = build(small(n_mels=30), manifest, shard_seconds=2.0)
    shards = len(planned.plan.shards)
    assert outcome.computed == {"decode": 0, "resample": 0, "representation": shards}


def test_another_normalization_shares_every_shard(build, audio_folder):
    manifest = scan(audio_folder)
    recipe = small()
    _, first = build(recipe, manifest)
    robust = recipe.normalization.model_copy(update={"kind": "robust"})
    outcome, second = build(recipe.model_copy(update={"normalization": robust}), manifest)
    assert outcome.shards_computed == 0
    assert first.plan.key != second.plan.key
    assert FeatureSet.open(first.store).digest == FeatureSet.open(second.store).digest


def test_two_bad_clips_of_twelve_publish_nothing_and_are_listed(build, audio_folder, capfd):
    (audio_folder / "x.wav").write_bytes(b"RIFF broken")
    outcome, planned = build(small(), scan(audio_folder))
    assert outcome.succeeded  # one bad clip is always allowed
    assert FeatureSet.open(planned.store).quarantine["id"].tolist() == ["x.wav"]
    (audio_folder / "y.wav").write_bytes(b"RIFF also broken")
    manifest = scan(audio_folder)
    outcome, planned = build(small(), manifest, root="strict")
    assert not outcome.succeeded
    assert not planned.store.exists()
    said = capfd.readouterr().err
    assert "2 of 14 clips cannot be used, 1 are allowed, and nothing is published" in said
    assert "x.wav: decode: " in said
    assert "y.wav: decode: " in said
    outcome, planned = build(small(), manifest, root="strict", max_bad=0.2)
    assert outcome.succeeded
    assert outcome.computed["decode"] == 0


def test_nothing_is_published_of_nothing(build, tmp_path, capfd):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "x.wav").write_bytes(b"RIFF broken")
    outcome, _ = build(small(), scan(folder), max_bad=1.0)
    assert not outcome.succeeded
    assert "1 of 1 clips cannot be used" in capfd.readouterr().err


def test_a_file_that_changed_since_the_scan_fails_the_build(build, audio_folder, capfd):
    manifest = scan(audio_folder)
    sf.write(audio_folder / "a" / "00.wav", np.zeros(100), 8000)
    outcome, planned = build(small(), manifest, workers=2)
    assert not outcome.succeeded
    assert not planned.store.exists()
    assert "00.wav\nto do: scan again" in capfd.readouterr().err
    (failure,) = outcome.failures
    assert failure.endswith("00.wav: it has changed since it was scanned; scan again")


def test_a_worker_that_dies_is_told_of(build, audio_folder, monkeypatch, capfd):
    monkeypatch.setattr(Represent, "make", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    outcome, _ = build(small(), scan(audio_folder), workers=2)
    (failure,) = outcome.failures
    assert failure.startswith("log_mel, shard 1 of 1, 11 clips: its process died (exit code -9;")
    assert "to do: run it again with fewer workers" in capfd.readouterr().err


def test_of_many_failures_ten_are_said_and_all_are_had(build, audio_folder, monkeypatch, capfd):
    def make(self):
        raise RecipeError(f"r.toml: no {self.shard}; é")

    monkeypatch.setattr(Represent, "make", make)
    outcome, planned = build(small(), scan(audio_folder), shard_seconds=0.05)
    assert len(planned.plan.shards) == 11
    assert sorted(outcome.failures) == sorted(f"r.toml: no {i}; é" for i in range(11))
    said = capfd.readouterr().err
    assert said.count("error: no ") == 10
    assert "1 more tasks failed" in said


class Planned(luigi.Task):
    """A task whose `part` raises while Luigi plans."""

    part = luigi.Parameter()

    def complete(self):
        if self.part == "complete":
            raise RecipeError("r.toml: it went; restore it")
        return False

    def requires(self):
        if self.part == "requires":
            raise RecipeError("r.toml: it went; restore it")
        return Planned(part="complete")


@pytest.mark.parametrize("part", ["complete", "requires", "of another"])
def test_what_cannot_be_planned_says_why(capfd, part):
    assert not luigi_engine.run_luigi(Planned(part=part), workers=1).succeeded
    assert capfd.readouterr().err == "error: it went\nwhere: r.toml\nto do: restore it\n"


def test_an_interrupted_build_goes_on_where_it_was(build, audio_folder, monkeypatch):
    from basilar.pipeline.compute import stages

    manifest = scan(audio_folder)
    original, calls = stages.represent, []

    def fail_once(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return original(*arguments, **options)

    monkeypatch.setattr(stages, "represent", fail_once)
    outcome, _ = build(small(), manifest, shard_seconds=2.0)
    assert not outcome.succeeded
    monkeypatch.setattr(stages, "represent", original)
    outcome, planned = build(small(), manifest, shard_seconds=2.0)
    assert outcome.succeeded
    assert outcome.computed == {"decode": 0, "resample": 0, "representation": 1}
    _, clean = build(small(), manifest, root="clean")
    assert FeatureSet.open(planned.store).digest == FeatureSet.open(clean.store).digest


def values_of(store):
    """The digest of a set, and the bytes of its statistics."""
    stats = sorted(path for path in (store / "stats").rglob("c/*") if path.is_file())
    return FeatureSet.open(store).digest, [path.read_bytes() for path in stats]


@pytest.mark.parametrize("fitted", [False, True])
def test_artifacts_that_are_damaged_are_made_again(built, root, caplog, fitted):
    """Also if Luigi finds all shards complete; what was published of them stays as it is."""
    again = Build(root=root, plan=built.plan, tracking_uri="")
    expected = values_of(again.store)
    moved = again.store.rename(root / "published.zarr")
    shards = [again.shard_folder(shard) for shard in again.plan.shards]
    flip(next((shards[0] / "moments" / "sum").rglob("c/0/0")))
    os.truncate(shards[1] / "clips.parquet", 40)
    (shards[2] / "zarr.json").unlink()
    (shards[3] / "quarantine.parquet").unlink()
    if fitted:
        flip(again.statistics)
    else:
        again.statistics.unlink()
    assert luigi_engine.run(again, workers=1, log=False).succeeded
    assert values_of(again.store) == values_of(moved) == expected
    assert caplog.text.count("; its shard is made again") == 4
    for shard in shards:
        check_files(shard)


def test_a_dead_tracker_costs_seconds_loses_nothing_and_is_logged_next_time(
    tmp_path, audio_folder, caplog, tracker
):
    manifest = scan(audio_folder)
    plan = Plan(small(), manifest)
    dead = Build(root=tmp_path / "root", plan=plan, tracking_uri="http://127.0.0.1:9")
    outcome = luigi_engine.run(dead, workers=1)
    assert outcome.succeeded
    assert outcome.mlflow_run_id is None
    assert outcome.seconds < 30
    assert "not logged to MLflow: http://127.0.0.1:9" in caplog.text
    assert dead.store.exists()
    outcome = luigi_engine.run(
        Build(root=tmp_path / "root", plan=plan, tracking_uri=tracker), workers=1
    )
    assert outcome.mlflow_run_id is not None
    assert outcome.shards_computed == 0


def test_a_cached_rerun_imports_nothing_that_it_does_not_need(
    build, audio_folder, tmp_path, tracker
):
    manifest = scan(audio_folder)
    manifest.write(tmp_path / "m.parquet")
    build(Recipe.load(LOG_MEL), manifest, to=tracker)
    code = (
        "import sys; from basilar.pipeline.cli.command import app; "
        f"app(['build', {str(LOG_MEL)!r}, {str(tmp_path / 'm.parquet')!r}, '--json', "
        f"'--root', {str(tmp_path / 'root')!r}, '--tracking-uri', {tracker!r}], "
        "standalone_mode=False); "
        "print(sorted({'mlflow', 'pandas', 'av', 'zarr'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"shards_computed": 0' in done.stdout
    assert done.stderr.strip() == "[]"


def processes(commands, delay):
    """Start commands one after the other and wait for all: their exit codes and what they said."""
    running = []
    for command in commands:
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        time.sleep(delay)
    said = [process.communicate(timeout=600) for process in running]
    return [(p.returncode, *text) for p, text in zip(running, said, strict=True)]


def commands(tmp_path, audio, tracker, recipes):
    scan(audio).write(tmp_path / "m.parquet")
    for i, recipe in enumerate(recipes):
        (tmp_path / f"{i}.toml").write_text(recipe.to_toml())
    basilar = Path(sys.executable).with_name("basilar")
    options = ["--root", tmp_path / "root", "--tracking-uri", tracker, "--json"]
    options += ["--shard-seconds", "1", "--workers", "2"]
    manifest = tmp_path / "m.parquet"
    return [
        [basilar, "build", tmp_path / f"{i}.toml", manifest, *map(str, options)]
        for i in range(len(recipes))
    ]


def at_rate(sample_rate):
    kind = {"kind": "log_mel", "n_fft": 256, "hop_length": 64, "n_mels": 40}
    return Recipe.from_dict({"resample": {"sample_rate": sample_rate}, "representation": kind})


@pytest.mark.torture
@pytest.mark.parametrize("delay", [0.0, 0.4, 0.8])
def test_two_builds_in_one_root_both_succeed(tmp_path, audio_folder, tracker, delay):
    recipes = [at_rate(16000), at_rate(11025)]
    for code, out, err in processes(commands(tmp_path, audio_folder, tracker, recipes), delay):
        assert code == 0, err
        fs = FeatureSet.open(json.loads(out)["path"])
        assert len(fs) == 12
    assert list((tmp_path / "root" / "artifacts" / "decode").glob("[!.]*")) == []


@pytest.mark.torture
def test_the_same_build_twice_at_once_publishes_once(tmp_path, audio_folder, tracker):
    found = processes(commands(tmp_path, audio_folder, tracker, [small(), small()]), 0.0)
    assert [code for code, _, _ in found] == [0, 0], found
    assert len({json.loads(out)["digest"] for _, out, _ in found}) == 1
    assert len(list((tmp_path / "root" / "features").iterdir())) == 1


def test_two_rates_in_one_workflow(tmp_path, audio_folder):
    """Both need the same decoded shards."""
    manifest = scan(audio_folder)
    builds = [
        Build(root=tmp_path / "root", plan=Plan(at_rate(rate), manifest, 1.0), tracking_uri="")
        for rate in (16000, 11025)
    ]

    class Both(luigi.WrapperTask):
        def requires(self):
            return [Publish.of(build.register()) for build in builds]

    assert luigi_engine.run_luigi(Both(), workers=1).succeeded
    assert all(build.store.exists() for build in builds)


def _refuse_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    bytearray(2**28)


DEADLY = {
    "a/03.wav": (lambda: ctypes.string_at(0), "crashed", "died of signal 11 (SIGSEGV), twice"),
    "b/04.wav": (lambda: os._exit(0), "crashed", "exited with status 0, twice"),
    "c/05.wav": (lambda: time.sleep(3600), "timeout", "took longer than 2 s, twice"),
    "a/06.wav": (_refuse_memory, "crashed", "ran out of memory, twice"),
    "b/07.wav": (lambda: os.kill(os.getpid(), signal.SIGKILL), "crashed", "signal 9 (SIGKILL)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.torture), 2])
def test_clips_that_kill_or_hang_the_decoder_cost_themselves_only(
    build, audio_folder, monkeypatch, workers
):
    manifest = scan(audio_folder)
    original = audio.decode_blocks

    def decode(path, **options):
        for name, (act, *_) in DEADLY.items():
            if path == audio_folder / name:
                faulthandler.disable()  # pytest's: it would print where
                act()
        return original(path, **options)

    monkeypatch.setattr(audio, "decode_blocks", decode)
    options = {"max_bad": 0.5, "shard_seconds": 2.0, "workers": workers}
    outcome, planned = build(small(), manifest, clip_timeout=2.0, **options)
    assert outcome.succeeded
    monkeypatch.undo()
    lost = read_table(planned.store / "quarantine.parquet").to_pylist()
    assert {entry["id"] for entry in lost} == DEADLY.keys()
    for entry in lost:
        _, reason, message = DEADLY[entry["id"]]
        assert (entry["stage"], entry["reason"]) == ("decode", reason)
        assert message in entry["message"]
        assert "to try again, delete the feature set and build again" in entry["message"]
    hurt = FeatureSet.open(planned.store)
    hurt_clips, hurt_digest = len(hurt), hurt.digest
    shutil.rmtree(planned.store)
    outcome, again = build(small(), manifest, **options)
    assert outcome.succeeded
    assert len(FeatureSet.open(again.store)) == 12
    for name in DEADLY:
        (audio_folder / name).unlink()
    outcome, rest = build(small(), scan(audio_folder), root="rest", **options)
    assert outcome.succeeded
    rest = FeatureSet.open(rest.store)
    assert hurt_clips == len(rest) == 7
    assert hurt_digest == rest.digest


@pytest.mark.parametrize("keep", [KEEP, pytest.param(STAGES, marks=pytest.mark.torture)])
def test_what_a_set_lost_to_the_machine_no_other_set_inherits(built, tmp_path, monkeypatch, keep):
    """A clip crashes at first: a relabelled set, a grown one and one of other mels try it again."""
    original, tries = audio.decode_blocks, []

    def decode(path, **options):
        if path.name == "05.wav":
            with (tmp_path / "tries").open("a") as file:  # of a child process
                file.write("x")
            os._exit(0)
        return original(path, **options)

    def run(**changes):
        plan = Plan(Recipe.from_dict({**SMALL, **changes}), built.plan.manifest, 1.0)
        planned = Build(root=tmp_path / "root", plan=plan, tracking_uri="", keep=keep, max_bad=0.5)
        expected = planned.work(begun=False)
        outcome = luigi_engine.run(planned, workers=1, log=False)
        assert outcome.succeeded
        assert outcome.computed == {stage: len(expected.pending[stage]) for stage in STAGES}
        return planned, outcome.computed

    other_mels = {"representation": {**SMALL["representation"], "n_mels": 5}}
    one = dict.fromkeys(STAGES, 1)
    with monkeypatch.context() as patched:
        patched.setattr(audio, "decode_blocks", decode)
        hurt, _ = run()
        tries.append((tmp_path / "tries").read_text())
        assert run()[1] == dict.fromkeys(STAGES, 0)  # the same key finds it published
        assert run(normalization={"kind": "none"})[1] == one
        tries.append((tmp_path / "tries").read_text())
    assert tries == ["xx", "xxxx"]  # twice a build
    notes = list((hurt.root / "artifacts" / "lost").iterdir())
    assert len(notes) == len(keep)
    assert garbage.find(hurt.root).garbage == []
    _, computed = run(**other_mels)
    assert computed == {**one, "representation": len(built.plan.shards)}
    assert not [note for note in notes if note.name[:3] == "res" and note.exists()]
    robust, computed = run(normalization={"kind": "robust"})
    assert computed == {**one, "decode": 0, "resample": 0}
    assert run(normalization={"kind": "min_max"})[1] == dict.fromkeys(STAGES, 0)
    assert (len(FeatureSet.open(hurt.store)), len(FeatureSet.open(robust.store))) == (11, 12)
    shutil.rmtree(hurt.store)
    again, _ = run()
    assert values_of(again.store) == values_of(built.store)


def test_failures_of_all_processes_are_collected_once():
    """Whichever processes log them at the same time, and if one is killed at it."""
    messages = [f"failure {number}\nin two lines" for number in range(200)]
    ready, go = os.pipe()
    with contextlib.closing(luigi_engine._Failures()) as failures:

        def log(text):
            return failures.filter(logging.makeLogRecord({"msg": text}))

        for child in range(4):
            if not os.fork():
                os.close(go)
                os.read(ready, 1)  # all begin when the parent closes its end
                for text in messages:
                    log(text)
                if child == 0:
                    fcntl.lockf(failures._file, fcntl.LOCK_EX)
                os.kill(os.getpid(), signal.SIGKILL)
        os.close(go)
        for _ in range(4):
            os.wait()
        os.close(ready)
        assert failures.said() == messages
        assert not log(messages[0])
        assert not log("one too many")  # ten are shown
        assert failures.said() == [*messages, "one too many"]
        assert [log(text) for text in ("a", "b")] == [False, False]


def test_ten_failures_are_shown_each_once():
    with contextlib.closing(luigi_engine._Failures()) as failures:
        shown = [
            failures.filter(logging.makeLogRecord({"msg": f"{number // 2}"}))
            for number in range(24)
        ]
    assert shown == [True, False] * 10 + [False] * 4


def test_what_logs_where_is_as_it_was_after_a_build():
    logger = logging.getLogger("luigi-interface")
    before = logger.handlers, logger.level, logger.propagate
    with luigi_engine._failures_reported():
        assert logger.level == logging.ERROR
        assert (logger.handlers, logger.level, logger.propagate) != before
    assert (logger.handlers, logger.level, logger.propagate) == before
