"""One build by several processes with a shared root, and what it costs to lose one."""

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
import soundfile as sf

from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import files, locks
from tests.conftest import REPOSITORY, SMALL, digest_of
from tests.pipeline.clusters import Processes, basilar, dask, dask_worker, kill, luigid, wait_for

_DEADLY = """
import os
from basilar.pipeline import audio
whole = audio.decode_blocks
def decode_blocks(path, **options):
    if path.name == "07.wav":
        os._exit(9)
    return whole(path, **options)
audio.decode_blocks = decode_blocks
"""

# Else a builder is done before any worker has seen it.
_SLOW = """
import time
from basilar.pipeline import audio
whole = audio.decode_blocks
def decode_blocks(path, **options):
    time.sleep(0.3)
    return whole(path, **options)
audio.decode_blocks = decode_blocks
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a manifest of 30 clips, a recipe, and the digest of a build in one process."""
    folder = tmp_path_factory.mktemp("machines")
    (folder / "audio").mkdir()
    for i in range(30):
        y = 0.1 * np.random.default_rng(i).standard_normal(8000 + 80 * i)
        sf.write(folder / "audio" / f"{i:02}.wav", y, 8000, subtype="PCM_16")
    scan(folder / "audio").write(folder / "m.parquet")
    (folder / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    plan = Plan(Recipe.from_dict(SMALL), Manifest.read(folder / "m.parquet"), 1.5)
    assert len(plan.shards) > 20
    build = Build(root=folder / "clean", plan=plan, tracking_uri="")
    assert luigi_engine.run(build, workers=1, log=False).succeeded
    return folder, digest_in(build.root)


def digest_in(root):
    (store,) = (root / "features").glob("*.zarr")
    return digest_of(store)


def start_build(processes, work, root, tracker, *engine):
    what = (work / "small.toml", work / "m.parquet", "--root", root, "--shard-seconds", "1.5")
    how = ("--workers", "1", "--tracking-uri", tracker, *engine)
    return processes.start(
        *basilar("build", *what, *how),
        folder=root.parent / "builder",
        PYTHONPATH=with_(_SLOW, work),
    )


def with_(change, folder):
    """The PYTHONPATH of processes that make a change to themselves when they start."""
    (folder / "sitecustomize.py").write_text(change)
    return os.pathsep.join([str(folder), str(REPOSITORY)])


def start_worker(processes, root, url, name, *, idle=20, inside=(), **environment):
    command = basilar("worker", "--root", root, "--scheduler", url, "--idle", idle)
    return processes.start(*inside, *command, folder=root.parent / name, **environment)


def said(process_folder):
    return (process_folder / "said").read_text()


def made(root):
    return len(list((root / "artifacts" / "representation").glob("[!.]*")))


def running(url, process):
    """The tasks that a luigid takes to be run by a process."""
    query = urllib.parse.urlencode({"data": json.dumps({"status": "RUNNING", "search": None})})
    with urllib.request.urlopen(f"{url}/api/task_list?{query}", timeout=5) as page:
        tasks = json.load(page)["response"]
    return {
        name for name, task in tasks.items() if f":{process.pid}-" in str(task["worker_running"])
    }


@pytest.mark.slow
def test_a_worker_in_a_folder_of_its_own_shares_a_build_by_a_luigid(work, tmp_path):
    folder, clean = work
    plan = Plan(Recipe.from_dict(SMALL), Manifest.read(folder / "m.parquet"), 3.0)
    build = Build(root=tmp_path / "root", plan=plan, tracking_uri="")
    with Processes() as processes, locks.session(build.root):
        url = luigid(processes, tmp_path / "luigid")
        build.register(scheduler=url)
        helper = start_worker(processes, build.root, url, "a", idle=0)
        wait_for(lambda: running(url, helper))
        assert luigi_engine.run(build, workers=1, log=False, scheduler=url).succeeded
        assert digest_in(build.root) == clean
        assert helper.wait(60) == 0, said(tmp_path / "a")
        assert said(tmp_path / "a") == f"done {plan.key}\n"


@pytest.mark.torture
def test_what_a_killed_worker_was_at_is_taken_over(work, tmp_path, tracker):
    folder, clean = work
    root = tmp_path / "root"
    with Processes() as processes:
        url = luigid(processes, tmp_path / "luigid")
        victim, helper = [start_worker(processes, root, url, name) for name in ("a", "b")]
        builder = start_build(
            processes, folder, root, tracker, "--engine", "luigid", "--scheduler", url
        )
        wait_for(lambda: running(url, victim))
        kill(victim)
        lost = running(url, victim)
        before, began = made(root), time.monotonic()
        assert builder.wait(240) == 0, said(tmp_path / "builder")
        print(f"{before} shards were made; with {lost} lost, {time.monotonic() - began:.1f} s more")
        assert digest_in(root) == clean
        assert helper.wait(60) == 0


@pytest.mark.torture
def test_a_clip_that_two_hosts_lost_is_had_by_the_next_set_of_two_others(work, tmp_path):
    """That a shard lacks it, hosts know from the root alone."""
    folder, clean = work
    manifest = Manifest.read(folder / "m.parquet")

    def built(names, changes, **environment):
        plan = Plan(Recipe.from_dict({**SMALL, **changes}), manifest, 3.0)
        build = Build(root=tmp_path / "root", plan=plan, tracking_uri="", max_bad=0.1)
        with locks.session(build.root):
            build.register(scheduler=url)
            workers = [
                start_worker(processes, build.root, url, name, idle=0, **environment)
                for name in names
            ]
            for worker, name in zip(workers, names, strict=True):
                assert worker.wait(120) == 0, said(tmp_path / name)
                assert said(tmp_path / name) == f"done {plan.key}\n"
        return build.store

    with Processes() as processes:
        url = luigid(processes, tmp_path / "luigid")
        hurt = built("ab", {}, PYTHONPATH=with_(_DEADLY, tmp_path))
        (lost,) = files.read_table(hurt / "quarantine.parquet").to_pylist()
        assert (lost["id"], lost["reason"]) == ("07.wav", "crashed")
        assert digest_of(hurt) != clean
        assert digest_of(built("cd", {"normalization": {"kind": "none"}})) == clean


@pytest.fixture
def host():
    """Another host, as far as the network goes: its name, and the address of this one."""
    name, cable = f"basilar-{os.getpid()}", f"b{os.getpid()}"
    steps = (
        f"netns add {name}",
        f"link add {cable} type veth peer name eth netns {name}",
        f"addr add 10.213.77.1/24 dev {cable}",
        f"link set {cable} up",
        f"-n {name} addr add 10.213.77.2/24 dev eth",
        f"-n {name} link set eth up",
    )
    try:
        for step in steps:
            if subprocess.run(["ip", *step.split()], capture_output=True).returncode:
                pytest.skip(f"network namespaces do not work here: ip {step}")
        yield name, cable, "10.213.77.1"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.torture
def test_what_a_host_was_at_that_is_cut_off_is_taken_over(work, tmp_path, tracker, host):
    folder, clean = work
    root = tmp_path / "root"
    name, cable, address = host
    with Processes() as processes:
        url = luigid(processes, tmp_path / "luigid", address)
        inside = ("ip", "netns", "exec", name)
        remote = start_worker(processes, root, url, "remote", inside=inside)
        builder = start_build(
            processes, folder, root, tracker, "--engine", "luigid", "--scheduler", url
        )
        wait_for(lambda: running(url, remote))
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        assert builder.wait(240) == 0, said(tmp_path / "builder")
        assert digest_in(root) == clean
        assert remote.poll() is None  # it has no news of this


@pytest.mark.torture
def test_helpers_finish_what_a_killed_builder_began(work, tmp_path, tracker):
    folder, clean = work
    root = tmp_path / "root"
    with Processes() as processes:
        url = luigid(processes, tmp_path / "luigid")
        helper = start_worker(processes, root, url, "a")
        builder = start_build(
            processes, folder, root, tracker, "--engine", "luigid", "--scheduler", url
        )
        wait_for(lambda: running(url, helper))
        kill(builder)
        assert helper.wait(120) == 0, said(tmp_path / "a")
        assert digest_in(root) == clean


@pytest.mark.torture
def test_a_dask_cluster_that_loses_a_worker_builds_the_same_set(work, tmp_path, tracker):
    folder, clean = work
    root = tmp_path / "root"
    with Processes() as processes:
        file, (victim, _) = dask(processes, tmp_path / "dask")
        builder = start_build(processes, folder, root, tracker, "--engine", "dask", "--dask", file)
        wait_for(lambda: made(root) > 2)
        kill(victim)
        before = made(root)
        assert before < 20, "it was killed too late"
        time.sleep(1)
        dask_worker(processes, tmp_path / "dask" / "new", file)
        assert builder.wait(120) == 0, said(tmp_path / "builder")
        assert digest_in(root) == clean
