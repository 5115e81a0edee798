"""Object stores: `memory://` for what is the same in all, an S3 server on loopback for the rest."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from functools import partial

import pytest

from basilar.pipeline import storage
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import atomic, checksums, object_store, remote, urls
from basilar.pipeline.training.feature_set import FeatureSet
from basilar.pipeline.training.loader import Loader
from tests.conftest import REPOSITORY, SMALL
from tests.pipeline.clusters import Processes, Server, done_by, luigid

pytestmark = pytest.mark.usefixtures("own_folder")  # each test fetches for itself


@pytest.fixture(scope="session")
def server():
    with Server() as running:
        yield running


@pytest.fixture
def other():
    """Another address of the same store: which machine asks is told by it."""
    with Server() as running:
        yield running


@pytest.fixture
def s3(server, monkeypatch):
    """The store of an empty `s3://bucket`."""
    import s3fs

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    object_store._store.cache_clear()
    store = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    if store.exists("bucket"):
        store.rm("bucket", recursive=True)
    store.mkdir("bucket")
    yield store
    server.meddle = lambda method, path: None
    object_store._store.cache_clear()


def uploaded(store, folder, where):
    """The files of a folder as objects."""
    for file in folder.rglob("*.wav"):
        target = f"{where}/{file.relative_to(folder).as_posix()}"
        store.pipe_file(target, file.read_bytes())


def planned(audio, root, *, shard_seconds=1.0):
    """A build of the small recipe over the audio that is somewhere."""
    manifest = scan(audio)
    return Build(
        root=storage.place(root),
        plan=Plan(Recipe.from_dict(SMALL), manifest, shard_seconds),
        tracking_uri="",
    )


def digest(build, *, workers=1):
    """What a build comes to."""
    assert luigi_engine.run(build, workers=workers, log=False).succeeded
    return FeatureSet.open(storage.name(build.store)).digest


@pytest.fixture(scope="session")
def local(built):
    """The audio of a local feature set, and the set's digest."""
    return built.plan.manifest.root, FeatureSet.open(built.store).digest


def test_scanned_audio_is_recorded_by_its_url(memory, audio_folder, tmp_path):
    uploaded(memory, audio_folder, "/bucket/audio")
    memory.pipe_file("/bucket/audio/notes.txt", b"not audio")
    here, there = scan(audio_folder), scan("memory://bucket/audio")
    assert there.hash == here.hash
    assert there.table.equals(here.table)
    assert there.not_audio == ("notes.txt",)
    there.write(tmp_path / "manifest.parquet")
    assert (
        storage.name(Manifest.read(tmp_path / "manifest.parquet").root) == "memory://bucket/audio"
    )


def test_remote_audio_and_remote_root_give_the_local_digest(memory, local, tmp_path):
    audio, value = local
    uploaded(memory, audio, "/bucket/audio")
    assert digest(planned("memory://bucket/audio", tmp_path / "root")) == value
    remote = planned("memory://bucket/audio", "memory://bucket/root")
    assert digest(remote) == value
    made = {name.removeprefix("/bucket/root/") for name in memory.find("/bucket/root")}
    assert f"features/{remote.plan.key}.zarr/zarr.json" in made
    assert not [name for name in made if name.startswith("artifacts/decode")]
    assert len([name for name in made if name.startswith("artifacts/resample")]) == 2 * len(
        remote.plan.shards
    )
    assert not [name for name in made if ".tmp" in name]


def test_working_copies_are_gone_when_they_were_used(memory, audio_folder):
    build = planned(audio_folder, "memory://bucket/root")
    digest(build)
    left = {path.suffix for path in urls.scratch_folder().rglob("*") if path.is_file()}
    assert not left & {".f32", ""} - {""}
    assert not list((build.root / "artifacts" / "representation").rglob("c/*"))
    assert not list(build.store.rglob("features/c/*"))


def test_a_changed_object_is_refused(memory, audio_folder, tmp_path, capfd):
    uploaded(memory, audio_folder, "/bucket/audio")
    build = planned("memory://bucket/audio", tmp_path / "root")
    memory.pipe_file("/bucket/audio/a/00.wav", (audio_folder / "b" / "01.wav").read_bytes())
    assert not luigi_engine.run(build, workers=1, log=False).succeeded
    assert "memory://bucket/audio/a/00.wav\nto do: scan again" in capfd.readouterr().err


def test_a_missing_object_is_named(memory, audio_folder, tmp_path, capfd):
    uploaded(memory, audio_folder, "/bucket/audio")
    build = planned("memory://bucket/audio", tmp_path / "root")
    memory.rm("/bucket/audio/a/00.wav")
    assert not luigi_engine.run(build, workers=1, log=False).succeeded
    assert "memory://bucket/audio/a/00.wav" in capfd.readouterr().err


def test_a_second_build_finds_the_first(memory, audio_folder, monkeypatch):
    build = planned(audio_folder, "memory://bucket/root")
    digest(build)
    monkeypatch.setattr(urls, "_made", {})
    again = luigi_engine.run(planned(audio_folder, "memory://bucket/root"), workers=1, log=False)
    assert (again.succeeded, again.shards_computed) == (True, 0)


def test_the_first_to_commit_a_folder_stays(memory, tmp_path):
    for value in ("1", "2"):
        made = tmp_path / value
        made.mkdir()
        (made / "zarr.json").write_text(value)
        storage.commit(made, storage.place("memory://bucket/root/features/a.zarr"))
    assert memory.cat_file("/bucket/root/features/a.zarr/zarr.json") == b"1"


class Killed(BaseException):
    """What ends an upload, wherever it is."""


@pytest.mark.parametrize("killed", ["", "first", "second", "both"])
def test_what_two_upload_at_once_is_whole(memory, tmp_path, monkeypatch, killed):
    path, folder = storage.place("memory://bucket/a.zarr"), "/bucket/a.zarr"
    for name in ("first", "second", "third"):
        for member, text in (("start", "s"), ("features", "rows"), ("zarr.json", name)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / member).write_text(text)
        checksums.write_checksums(tmp_path / name)
    ask, running, committed = remote.ask_store, [], 0

    def asks(*arguments):
        name, left, then = running.pop()
        running.append((name, left - 1, then))
        if left == 0:
            then()
            if killed in (name, "both"):
                raise Killed
        return ask(*arguments)

    def upload(name, at, then=lambda: None):
        """Upload a folder, and do `then` before the store is asked for the time that is `at`."""
        running.append((name, at, then))
        with contextlib.suppress(Killed):
            storage.commit(tmp_path / name, path)
        running.pop()

    monkeypatch.setattr(remote, "TRANSFERS", 1)
    for one, two in itertools.product(range(6), repeat=2):
        memory.rm("/bucket", recursive=True) if memory.exists("/bucket") else None
        with monkeypatch.context() as patched:
            patched.setattr(remote, "ask_store", asks)
            upload("first", one, partial(upload, "second", two))
        if storage.exists(path):
            committed += 1
            assert_whole(memory, folder)
        storage.commit(tmp_path / "third", path)
        assert_whole(memory, folder)
    assert committed > 5


def assert_whole(store, folder):
    """All objects of a folder are what its files.json says, and no others."""
    known = json.loads(store.cat_file(f"{folder}/files.json"))["files"]
    found = {name.removeprefix(f"{folder}/"): store.cat_file(name) for name in store.find(folder)}
    found.pop("files.json")
    assert {name: [len(data), zlib.crc32(data)] for name, data in found.items()} == known


def test_the_catalogue_says_what_the_store_does(memory, audio_folder, as_json, monkeypatch):
    build = planned(audio_folder, "memory://bucket/root")
    commit, entry = storage.commit, f"/bucket/root/catalogue/features/{build.plan.key}.json"

    def late(made, path):
        if path == build.store:
            memory.pipe_file(entry, memory.cat_file(entry).replace(b"x86", b"of another machine"))
        return commit(made, path)

    monkeypatch.setattr(remote, "commit", late)
    digest(build)
    storage.drop(build.root)
    code, found = as_json("verify", build.plan.key, "--root", "memory://bucket/root")
    assert (code, found["problems"]) == (0, [])


def test_an_upload_of_other_files_takes_the_place_of_one_that_died(memory, tmp_path, monkeypatch):
    path = storage.place("memory://bucket/root/features/a.zarr")
    for name in ("dead", "alive"):
        for member in ("values", f"of the {name}", "zarr.json"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / member).write_text(name)
        checksums.write_checksums(tmp_path / name)
    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "put_file", lambda *_: 1 / 0)
        with pytest.raises(OSError, match="ZeroDivisionError"):
            storage.commit(tmp_path / "dead", path)
    waited = []
    monkeypatch.setattr(remote.time, "sleep", waited.append)
    monkeypatch.setattr(remote, "_STANDSTILL", 0.1)
    assert storage.commit(tmp_path / "alive", path)
    assert waited
    assert_whole(memory, "/bucket/root/features/a.zarr")
    assert memory.cat_file("/bucket/root/features/a.zarr/values") == b"alive"


def test_an_upload_that_was_cut_off_does_not_exist(memory, tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.mkdir()
    for name in ("zarr.json", "values"):
        (made / name).write_text("{}")
    path = storage.place("memory://bucket/root/features/a.zarr")
    monkeypatch.setattr(type(memory), "pipe_file", lambda *_, **__: 1 / 0)
    with pytest.raises(OSError, match="ZeroDivisionError"):
        storage.commit(made, path)
    assert memory.exists("/bucket/root/features/a.zarr/values")
    assert not storage.exists(path)
    assert storage.children(path.parent, "*.zarr") == []


def test_the_commands_take_a_remote_root(published, as_json, basilar, tmp_path):
    root, key, value = published
    code, listed = as_json("ls", "--root", root)
    assert (code, [a["digest"] for a in listed["feature_sets"]]) == (0, [value])
    assert listed["root"] == root
    code, shown = as_json("show", key[:8], "--root", root)
    assert (code, shown["path"]) == (0, f"{root}/features/{key}.zarr")
    code, verified = as_json("verify", key[:8], "--root", root, "--sample", 2)
    assert (code, verified["sound"], len(verified["sampled"])) == (0, True, 2)
    assert verified["artifacts"] > 1
    code, found = as_json("bundle", key[:8], "--root", root, "-o", tmp_path / "bundle")
    assert (code, found["key"]) == (0, key)
    assert basilar("check-bundle", tmp_path / "bundle")[0] == 0
    code, page = as_json("report", key[:8], "--root", root, "-o", tmp_path / "report.html")
    assert (code, page["keys"]) == (0, [key])
    code, found = as_json("gc", "--root", root)
    assert (code, found["feature_sets"], found["garbage"]) == (0, 1, [])


def test_manifests_and_files_to_draw_may_be_urls(memory, audio_folder, as_json, tmp_path, root):
    uploaded(memory, audio_folder, "/bucket/audio")
    manifest, clip = "memory://bucket/m.parquet", "memory://bucket/audio/a/00.wav"
    code, made = as_json("scan", "memory://bucket/audio", "-o", manifest)
    assert (code, made["manifest"]) == (0, manifest)
    recipe = tmp_path / "small.toml"
    recipe.write_text(Recipe.from_dict(SMALL).to_toml())
    code, planned = as_json("build", recipe, manifest, "--root", root, "--dry-run")
    assert (code, planned["manifest_hash"], planned["clips"]) == (0, made["manifest_hash"], 12)
    code, drawn = as_json("plot", clip, "--recipe", recipe, "-o", tmp_path / "clip.png")
    assert (code, drawn["bytes"] > 1000) == (0, True)


@pytest.mark.parametrize(
    ("command", "to_do"),
    [
        (("status",), "run the same basilar build with --dry-run"),
        (("worker", "--scheduler", "http://127.0.0.1:9"), "build --engine luigid --scheduler"),
        (("ui",), "--tracking-uri"),
    ],
)
def test_what_an_object_store_cannot_tell_is_refused(basilar, command, to_do):
    code, _, said = basilar(*command, "--root", "memory://bucket/root")
    assert code == 2
    assert said.count("\n") == 3
    assert "where: memory://bucket/root\nto do: " in said
    assert to_do in said


@pytest.mark.parametrize(
    "command",
    [
        ("bundle", "0", "--root", "root", "-o", "memory://bucket/bundle"),
        ("check-bundle", "memory://bucket/bundle"),
        ("report", "0", "--root", "root", "-o", "memory://bucket/r.html"),
        ("plot", "0", "--root", "root", "-o", "memory://bucket/p.png"),
    ],
)
def test_what_is_for_this_machine_is_no_url(basilar, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, said = basilar(*command)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "a local path is needed here" in " ".join(said.split())


def test_the_doctor_tries_an_object_store(memory, as_json, monkeypatch):
    def found():
        code, said = as_json("doctor", "--root", "memory://bucket/root")
        checks = {check["name"]: check for check in said["checks"]}
        return code, {name: checks[name]["state"] for name in NAMES if name in checks}, checks

    code, states, _ = found()
    assert (code, states) == (0, dict.fromkeys(NAMES, "ok"))
    assert memory.find("/bucket") == []
    with monkeypatch.context() as patched:
        written = type(memory).pipe_file
        patched.setattr(type(memory), "pipe_file", lambda s, p, v, mode: written(s, p, v))
        code, states, checks = found()
    assert (code, states) == (0, {**dict.fromkeys(NAMES, "ok"), "create-only": "warning"})
    assert "one machine at a time" in checks["create-only"]["message"]
    monkeypatch.setattr(type(memory), "put_file", lambda *_: 1 / 0)
    code, states, checks = found()
    assert (code, states) == (1, {"root": "failed"})
    assert "check its name" in checks["root"]["message"]


NAMES = ("root", "listing", "create-only", "removal")


def test_a_set_is_reproduced_from_a_remote_root(published, as_json):
    root, key, value = published
    code, found = as_json("reproduce", key[:8], "--root", root, "--workers", 1)
    assert (code, found["verdict"], found["digest_now"]) == (0, "identical", value)


def test_verify_finds_what_changed_is_missing_or_too_many(memory, published, as_json):
    root, key, _ = published
    folder = f"/kept/root/features/{key}.zarr"
    saved = {name: memory.cat_file(name) for name in memory.find(folder)}
    shard = next(name for name in sorted(saved) if "/features/c/" in name)
    damaged = bytearray(saved[shard])
    damaged[10] ^= 1
    memory.pipe_file(shard, bytes(damaged))
    memory.rm(f"{folder}/quarantine.parquet")
    memory.pipe_file(f"{folder}/other", b"")
    try:
        code, found = as_json("verify", key[:8], "--root", root)
        said = {
            problem["file"].removeprefix(f"{root}/features/{key}.zarr/"): problem["problem"]
            for problem in found["problems"]
        }
        assert code == 1
        assert "CRC-32" in said.pop(shard.removeprefix(f"{folder}/"))
        assert said == {"quarantine.parquet": "is missing", "other": "does not belong here"}
        code, found = as_json("verify", key[:8], "--root", root, "--repair")
        assert code == 1
        assert "build again" in found["error"]
    finally:
        memory.rm(f"{folder}/other")
        for name, data in saved.items():
            memory.pipe_file(name, data)


def test_gc_removes_what_nobody_needs_and_is_not_young(memory, audio_folder, as_json, monkeypatch):
    build = planned(audio_folder, "memory://bucket/root")
    value = digest(build)
    stray = "/bucket/root/artifacts/resample/" + 32 * "a"
    cut_off = "/bucket/root/features/" + 32 * "b" + ".zarr"
    for name in (f"{stray}/samples.f32", f"{cut_off}/clips.parquet", f"{stray}x/mine"):
        memory.pipe_file(name, b"1234")
    code, found = as_json("gc", "--root", "memory://bucket/root", "--delete")
    assert (code, found["garbage"]) == (0, [])
    assert "2 more" in found["notes"][0]
    monkeypatch.setattr("basilar.pipeline.audit.garbage.SETTLED", -1.0)
    code, found = as_json("gc", "--root", "memory://bucket/root", "--delete")
    assert {f"memory:/{stray}", f"memory:/{cut_off}"} == {g["path"] for g in found["garbage"]}
    assert found["unknown"] == [f"memory:/{stray}x"]
    assert (found["bytes"], memory.exists(stray), memory.exists(cut_off)) == (8, False, False)
    assert memory.exists(f"{stray}x/mine")
    assert digest(build) == value
    memory.rm(f"/bucket/root/features/{build.plan.key}.zarr", recursive=True)
    code, found = as_json("gc", "--root", "memory://bucket/root", "--delete")
    assert found["stages"]["representation"]["count"] == len(build.plan.shards)
    assert not memory.find("/bucket/root/artifacts/representation")


def test_s3_commits_once_copies_inside_and_lists_nothing(s3, server, tmp_path):
    first = storage.place("s3://bucket/root/artifacts/representation/a.1")
    second = storage.place("s3://bucket/root/features/b.zarr")
    server.requests.clear()
    for folder, text in ((first, "1"), (second, "2"), (second, "3")):
        made = tmp_path / text
        (made / "features" / "c" / "0").mkdir(parents=True)
        (made / "zarr.json").write_text(text)
        atomic.link(first / "features" / "c" / "0" / "0", made / "features" / "c" / "0" / "0")
        if folder == first:
            (made / "features" / "c" / "0" / "0").unlink()
            (made / "features" / "c" / "0" / "0").write_bytes(b"rows")
        (made / "files.json").write_text("")
        checksums.write_checksums(made, known={"features/c/0/0": (4, zlib.crc32(b"rows"))})
        assert storage.exists(folder) == (text == "3")
        storage.commit(made, folder)
    assert storage.exists(second)
    assert not [path for method, path in server.requests if path.rstrip("/") == "/bucket"]
    last = [path for method, path in server.requests if method == "PUT"][-1]
    assert last == "/bucket/root/features/b.zarr/zarr.json"
    assert (storage.fetch(second) / "zarr.json").read_text() == "2"  # the third came too late
    assert (second / "features" / "c" / "0" / "0").read_bytes() == b"rows"
    assert storage.children(second.parent, "[!.]*.zarr") == [second]
    storage.remove(second)
    assert (storage.exists(second), second.exists(), storage.list_objects(second)) == (
        False,
        False,
        {},
    )
    assert storage.exists(first)


def test_s3_after_a_fork(s3):
    s3.pipe_file("bucket/file.json", b"{}")
    path = storage.place("s3://bucket/file.json")
    assert storage.exists(path)  # a connection is there, and its thread
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if storage.fetch(path).read_bytes() == b"{}" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.torture
def test_s3_gives_the_local_digest(s3, local, as_json, tmp_path):
    audio, value = local
    uploaded(s3, audio, "bucket/audio")
    build = planned("s3://bucket/audio", "s3://bucket/root")
    assert digest(build, workers=2) == value
    again = luigi_engine.run(build, workers=1, log=False)
    assert (again.succeeded, again.shards_computed) == (True, 0)
    key = build.plan.key
    code, found = as_json("verify", key, "--root", "s3://bucket/root", "--sample", 1)
    assert (code, found["problems"]) == (0, [])
    code, found = as_json("reproduce", key, "--root", "s3://bucket/root")
    assert (code, found["verdict"]) == (0, "identical")
    code, found = as_json("gc", "--root", "s3://bucket/root")
    assert (code, found["garbage"], found["notes"]) == (0, [], [])
    fs = FeatureSet.open(storage.name(build.store), cache=tmp_path)
    assert sum(len(batch["clip"]) for batch in Loader(fs, batch_size=4)) == len(fs)


@pytest.mark.torture
def test_a_store_that_fails_now_and_then_costs_time_only(s3, server, local):
    audio, value = local
    uploaded(s3, audio, "bucket/audio")
    count = itertools.count()

    def meddle(method, path):
        number = next(count)
        if number % 7 == 0:
            return "500 InternalError"
        return "503 SlowDown" if number % 11 == 0 else None

    server.meddle = meddle
    assert digest(planned("s3://bucket/audio", "s3://bucket/root"), workers=2) == value
    assert next(count) > 100


def start_build(folder, audio, tracker, *options, **environment):
    """A build below `s3://bucket/root` in a process of its own, as another machine does it."""
    scan(audio).write(folder / "manifest.parquet")
    (folder / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    what = ("small.toml", "manifest.parquet", "--root", "s3://bucket/root", "--json")
    how = ("--shard-seconds", "4", "--workers", "1", "--tracking-uri", tracker, *options)
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from basilar.pipeline.cli import main; main()",
            "build",
            *what,
            *how,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.torture
@pytest.mark.parametrize("killed", [None, 1, 2, 9, "zarr.json"])
def test_two_machines_publish_one_set_at_once(
    s3, server, other, local, tmp_path, tracker, as_json, killed
):
    audio, value = local
    both = threading.Barrier(2)
    counts = {"one": 0, "two": 0}

    def meddle(who, method, path):
        if method != "PUT" or not path.startswith("/bucket/root/features/"):
            return None
        counts[who] += 1
        if counts[who] == 1:
            both.wait(120)  # and from there on as it comes
        if who == "two" and (counts[who] == killed or path.endswith(f".zarr/{killed}")):
            two.kill()
            two.wait()
            return "503 SlowDown"
        return None

    server.meddle, other.meddle = partial(meddle, "one"), partial(meddle, "two")
    one = start_build(tmp_path, audio, tracker)
    two = start_build(tmp_path, audio, tracker, AWS_ENDPOINT_URL=other.url)
    out, err = one.communicate(timeout=600)
    assert one.returncode == 0, err
    assert json.loads(out)["digest"] == value
    out, err = two.communicate(timeout=600)
    if killed is None:
        assert two.returncode == 0, err
        assert json.loads(out)["digest"] == value
    else:
        assert two.returncode == -signal.SIGKILL
    key = planned(audio, "s3://bucket/root", shard_seconds=4.0).plan.key
    code, found = as_json("verify", key, "--root", "s3://bucket/root")
    assert (code, found["problems"]) == (0, [])
    assert found["artifacts"] == len(s3.ls("bucket/root/artifacts/representation"))


@pytest.mark.torture
def test_machines_share_a_build_in_an_object_store_by_a_luigid(
    s3, server, other, local, tmp_path, tracker
):
    audio, value = local
    both, seen = threading.Barrier(2), set()

    def meet(who, method, path):
        """Both are at a shard before one of them has made any."""
        if method == "PUT" and path.startswith("/bucket/root/artifacts/") and who not in seen:
            seen.add(who)
            both.wait(120)

    server.meddle, other.meddle = partial(meet, "one"), partial(meet, "two")
    with Processes() as processes:
        url = luigid(processes, tmp_path / "luigid")
        how = ("--engine", "luigid", "--scheduler", url, "--shard-seconds", "1")
        builds = [
            start_build(tmp_path, audio, tracker, *how, AWS_ENDPOINT_URL=address)
            for address in (server.url, other.url)
        ]
        for build in builds:
            out, err = build.communicate(timeout=600)
            assert build.returncode == 0, err
            assert json.loads(out)["digest"] == value
        who = [worker for name, worker in done_by(url) if name == "Represent"]
    assert len(who) == len(planned(audio, "s3://bucket/root").plan.shards) > len(set(who)) == 2


@pytest.mark.torture
@pytest.mark.parametrize("at", [1, 5, "zarr.json"])
def test_a_build_killed_while_it_publishes_goes_on(s3, server, local, tmp_path, tracker, at):
    audio, value = local
    running = start_build(tmp_path, audio, tracker)
    published = []

    def meddle(method, path):
        if method == "PUT" and path.startswith("/bucket/root/features/"):
            published.append(path)
            if len(published) == at or path.endswith(f".zarr/{at}"):
                running.kill()
                running.wait()
                return "503 SlowDown"
        return None

    server.meddle = meddle
    running.communicate(timeout=600)
    assert running.returncode == -signal.SIGKILL
    server.meddle = lambda method, path: None
    build = planned(audio, "s3://bucket/root", shard_seconds=4.0)
    assert published
    assert not storage.exists(build.store)
    assert storage.children(build.store.parent, "*.zarr") == []
    assert digest(build) == value
