"""Builds that are killed at random moments: what is published is right, and the next build goes on.

Processes are forked from one that has imported everything, so that a kill hits the build itself.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from basilar.pipeline.audit.verify import verify
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.compute import stages
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import recorded_keys
from tests.conftest import REPOSITORY, SMALL, digest_of

pytestmark = pytest.mark.usefixtures("disk")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["basilar.pipeline.store.publish", "tests.test_crashes"])


class Running:
    """A build in a process group of its own."""

    def __init__(self, root, manifest, **options):
        self.said, child = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=carry_out, args=(child, root, manifest, options))
        self.process.start()
        child.close()
        self.said.recv()  # it leads its group

    def kill(self):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()

    def kill_worker(self, rng):
        """Kill one of the processes that it has forked, if there is one, and see it end."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        if workers:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(int(rng.choice(workers)), signal.SIGKILL)
        self.process.join(60)
        assert self.process.exitcode is not None

    def result(self):
        """The digest of what it published, None if it failed, and the id of its run."""
        result = self.said.recv()
        self.process.join()
        return result


def carry_out(said, root, manifest, options):
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    said.send("ready")
    table = {**SMALL, "resample": {"sample_rate": options.get("sample_rate", 8000)}}
    plan = Plan(Recipe.from_dict(table), Manifest.read(manifest), 2.0)
    tracker, keep = options.get("tracker", ""), ("resample", "representation")
    build = Build(root=root, plan=plan, tracking_uri=tracker, keep=options.get("keep", keep))
    if "counted" in options:
        stages.represent = counted(stages.represent, options["counted"])
    outcome = luigi_engine.run(build, workers=options.get("workers", 2), log=bool(tracker))
    digest = digest_of(build.store) if outcome.succeeded else None
    said.send((digest, outcome.mlflow_run_id))


def counted(original, file):
    """The same function, a little slower, with a line in a file for each call."""

    def function(waveforms, transform, put, **where):
        with file.open("a") as lines:
            lines.write(" ".join(waveforms.contents) + "\n")
        time.sleep(0.1)
        return original(waveforms, transform, put, **where)

    return function


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Twenty clips in few shards."""
    folder = tmp_path_factory.mktemp("crashes")
    (folder / "audio").mkdir()
    for i in range(20):
        y = 0.1 * np.random.default_rng(i).standard_normal(1600 + 160 * i)
        sf.write(folder / "audio" / f"{i:02}.wav", y, 8000, subtype="PCM_16")
    scan(folder / "audio").write(folder / "m.parquet")
    return folder / "m.parquet"


@pytest.fixture(scope="module")
def clean(manifest, tmp_path_factory):
    """The digest of a build that nobody disturbs, and how long it takes in seconds."""
    started = time.perf_counter()
    digest, _ = Running(tmp_path_factory.mktemp("clean"), manifest).result()
    return digest, time.perf_counter() - started


def inspect(root, digest):
    """Whatever is published is whole and right: how many sets that is."""
    stores = list((root / "features").glob("[!.]*.zarr"))
    for store in stores:
        found = verify(root, store.stem)
        assert found.problems == []
        assert digest_of(store) == digest
    return len(stores)


def hidden(root):
    """All that is hidden in a root but its lock."""
    return [path for path in root.rglob(".*") if path.name != ".lock"]


def crash(root, manifest, clean, rng, *, kills, **options):
    """Kill builds at random moments, then let one end: in how many kills something was left."""
    digest, seconds = clean
    dirty = 0
    for kill in range(kills):
        running = Running(root, manifest, **options)
        time.sleep(rng.uniform(0, seconds))
        running.kill_worker(rng) if kill % 3 == 2 else running.kill()
        inspect(root, digest)
        dirty += bool(hidden(root))
    assert Running(root, manifest, **options).result()[0] == digest
    assert inspect(root, digest) == 1
    assert hidden(root) == []
    stages_left = {path.parent.name for path in root.glob("artifacts/[dr]e*/*")}
    assert stages_left == set(options.get("keep", ("resample", "representation")))
    return dirty


@pytest.mark.slow
def test_killed_builds_leave_nothing_wrong_and_are_finished(tmp_path, manifest, clean):
    rng = random.Random(1)
    crash(tmp_path / "root", manifest, clean, rng, kills=2)
    crash(tmp_path / "less", manifest, clean, rng, kills=1, keep=("representation",))


@pytest.mark.torture
def test_sixty_killed_builds(tmp_path, manifest, clean, tracker):
    rng, dirty = random.Random(2), 0
    for round_ in range(20):
        keep = ("representation",) if round_ % 2 else ("resample", "representation")
        root = tmp_path / str(round_)
        dirty += crash(root, manifest, clean, rng, kills=3, keep=keep)
    assert dirty > 3  # the moments were such that there was something to sweep


@pytest.mark.torture
def test_kills_while_logging_leave_one_finished_run(tmp_path, manifest, clean):
    uri = f"sqlite:///{tmp_path / 'root' / 'mlflow' / 'mlflow.db'}"
    rng = random.Random(3)
    for _ in range(6):
        running = Running(tmp_path / "root", manifest, tracker=uri)
        time.sleep(rng.uniform(0, 8))
        running.kill()
        inspect(tmp_path / "root", clean[0])
    digest, run_id = Running(tmp_path / "root", manifest, tracker=uri).result()
    assert digest == clean[0]
    assert [run.info.run_id for run in runs(uri)] == [run_id]


def runs(uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'basilar'")
    return client.search_runs([experiment.experiment_id])


@pytest.mark.slow
@pytest.mark.parametrize("builders", [2, pytest.param(4, marks=pytest.mark.torture)])
def test_builds_of_one_recipe_share_the_work(tmp_path, manifest, clean, builders):
    options = {"workers": 1, "counted": tmp_path / "count"}
    running = [Running(tmp_path / "root", manifest, **options) for _ in range(builders)]
    assert {build.result()[0] for build in running} == {clean[0]}
    assert inspect(tmp_path / "root", clean[0]) == 1
    computed = (tmp_path / "count").read_text().splitlines()
    assert len(computed) == len(set(computed)) >= 4
    assert hidden(tmp_path / "root") == []


@pytest.mark.torture
def test_builds_share_a_tracker_that_none_has_used_before(tmp_path, manifest, clean):
    uri = f"sqlite:///{tmp_path / 'root' / 'mlflow' / 'mlflow.db'}"
    rates = (8000, 8000, 11025, 4000)  # two equal ones, and two that share what is decoded
    running = [
        Running(tmp_path / "root", manifest, workers=1, tracker=uri, sample_rate=rate)
        for rate in rates
    ]
    results = [build.result() for build in running]
    assert results[0] == results[1]
    assert results[0][0] == clean[0]
    assert len(set(results)) == len(runs(uri)) == 3
    assert len(recorded_keys(tmp_path / "root")) == 3
    for key in recorded_keys(tmp_path / "root"):
        assert verify(tmp_path / "root", key).problems == []


@pytest.fixture
def scheduler(tmp_path):
    """A luigid on loopback that soon forgets dead workers; what a client is told of it."""
    (tmp_path / "luigi.cfg").write_text(
        "[scheduler]\nworker_disconnect_delay = 3\nprune_on_get_work = true\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [Path(sys.executable).with_name("luigid"), "--address", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, "LUIGI_CONFIG_PATH": str(tmp_path / "luigi.cfg")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(100):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/task_list", timeout=1).close()
            break
        time.sleep(0.1)
    yield ["--scheduler-port", str(port)]
    server.terminate()
    server.wait(10)


def luigi(tmp_path, manifest, tracker, *options):
    """A worker of a central scheduler that builds, in a process group of its own."""
    (tmp_path / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    module = (
        "--module",
        "basilar.workflows.build_feature_set",
        "BuildFeatureSet",
        "--workers",
        "2",
    )
    what = ("--recipe", tmp_path / "small.toml", "--manifest", manifest, "--shard-seconds", "2")
    where = ("--root", tmp_path / "root", "--tracking-uri", tracker)
    return subprocess.Popen(
        [sys.executable, "-m", "luigi", *map(str, (*module, *what, *where, *options))],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.torture
def test_builds_share_one_luigid(tmp_path, manifest, clean, scheduler, tracker):
    ways = (scheduler, scheduler, ["--local-scheduler"])
    for worker in [luigi(tmp_path, manifest, tracker, *way) for way in ways]:
        assert worker.wait(120) in (0, 1)  # one of a shared task's workers may have to ask again
    assert luigi(tmp_path, manifest, tracker, *scheduler).wait(120) == 0
    assert inspect(tmp_path / "root", clean[0]) == 1
    assert hidden(tmp_path / "root") == []


@pytest.mark.torture
def test_killed_workers_of_luigid(tmp_path, manifest, clean, scheduler, tracker):
    rng = random.Random(4)
    for _ in range(8):
        worker = luigi(tmp_path, manifest, tracker, *scheduler)
        time.sleep(rng.uniform(1, 6))
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        inspect(tmp_path / "root", clean[0])
    ended = [luigi(tmp_path, manifest, tracker, *scheduler).wait(120)]
    while ended[-1] and len(ended) < 8:  # until luigid has forgotten the dead
        time.sleep(3)
        ended.append(luigi(tmp_path, manifest, tracker, *scheduler).wait(120))
    assert ended[-1] == 0
    assert inspect(tmp_path / "root", clean[0]) == 1
    assert hidden(tmp_path / "root") == []
