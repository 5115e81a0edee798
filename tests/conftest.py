"""What all tests share: the corpora, a cache of their own, and small made-up audio."""

import atexit
import ctypes
import functools
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import settings
from numpy.typing import NDArray

from basilar.pipeline.process import configure
from basilar.pipeline.recipes.recipe import Recipe

if TYPE_CHECKING:
    from basilar.pipeline.build.build import Build

REPOSITORY = Path(__file__).resolve().parents[1]
# Shared machines stall: how long an example takes says nothing about it.
settings.register_profile("basilar", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=300)  # make torture
configure()  # before mlflow is imported
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "basilar"))

CORPORA = REPOSITORY.parent / "shared" / "corpora"

MEMORY = Path("/dev/shm")
ROOM = 6 << 30  # bytes
DISK = "BASILAR_TESTS_DISK"  # the folder for temporary files on a disk, while others are in memory


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files go to memory if there is room: a small build is hundreds of fsyncs."""
    config.pluginmanager.register(Examples())
    inside = DISK in os.environ or config.option.basetemp  # a worker, or as the user wants it
    if not inside and room_in_memory() > ROOM:
        os.environ[DISK] = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="basilar-tests-", dir=MEMORY)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """Collections of garbage need not look at what is imported, which is there to stay."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What a module freed goes back to the system: each fork copies the tables of all pages."""
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """No test may miss the corpora where they are: it fails rather than skip."""
    report = yield
    why = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if "corp" in why and (CORPORA / "SOURCES.md").exists():
        report.outcome = "failed"
        report.longrepr = f"{CORPORA} is there, and yet: {why}"
    return report


def room_in_memory() -> int:
    """The bytes that files in memory may take, as far as the memory itself has room for them."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (free,) = (int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        return min(free, shutil.disk_usage(MEMORY).free)
    except (OSError, ValueError):
        return 0


class Examples:
    """A module without examples is not imported to look for them: some import PyTorch or MLflow."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        if collection_path.suffix != ".py" or collection_path.name.startswith("test_"):
            return None
        return None if ">>>" in collection_path.read_text("utf-8") else True


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files on a disk, for tests that are about one."""
    if DISK not in os.environ:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", os.environ[DISK])
        patch.setattr(tempfile, "tempdir", os.environ[DISK])
        patch.setattr(tmp_path_factory, "_basetemp", _folder_on_disk())
        yield


@functools.cache
def _folder_on_disk() -> Path:
    """One a process, to its end: fixtures of the session may be made there."""
    folder = tempfile.mkdtemp(prefix="basilar-tests-", dir=os.environ[DISK])
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Real audio, which lies beside the repository and not in it."""
    if not (CORPORA / "SOURCES.md").exists():
        pytest.skip(f"the corpora are not at {CORPORA.name}/ beside the repository")
    return CORPORA


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Scans of one test run remember nothing of another, nor of the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True)
def _no_programs_of_before() -> None:
    """A test that patches windows or filters leaves none of them to the next one."""
    if "basilar.dsp.stft" in sys.modules:
        sys.modules["basilar.dsp.stft"]._program.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Shells have what they start in the background ignore Ctrl-C, and so its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def make_noise(n_samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise of a given length and seed, float32, about -20 dB."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(n_samples)).astype(np.float32)


@pytest.fixture
def noise() -> Callable[..., NDArray[np.float32]]:
    """`make_noise`."""
    return make_noise


def write_clips(folder: Path) -> Path:
    """Twelve clips of noise, 0.3 to 0.85 s, in three folders; two of them are equal."""
    for i in range(12):
        file = folder / "abc"[i % 3] / f"{i:02}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = 0 if i == 9 else i
        # Not as floats: their PEAK chunk holds the time of writing, and so would the hash.
        sf.write(file, make_noise(2400 + 400 * seed, seed), 8000, subtype="PCM_16")
    return folder


@pytest.fixture
def audio_folder(tmp_path: Path) -> Path:
    """The folder that `write_clips` makes."""
    return write_clips(tmp_path / "audio")


def digest_of(store: Path) -> str:
    """What a published set says is its digest."""
    digest: str = json.loads((store / "zarr.json").read_text())["attributes"]["basilar"]["digest"]
    return digest


SMALL = {
    "name": "small",
    "resample": {"sample_rate": 8000},
    "representation": {
        **{"kind": "log_mel", "n_fft": 256, "hop_length": 64, "n_mels": 8, "top_db": 80.0}
    },
    "normalization": {"kind": "standard"},
    "store": {"chunk_kib": 1, "shard_mib": 1},
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> "Build":
    """A published feature set of several shards, to read: 12 clips, two equal, and a bad one."""
    from basilar.pipeline.build import luigi_engine
    from basilar.pipeline.build.build import Build
    from basilar.pipeline.manifests.scan import scan
    from basilar.pipeline.plan import Plan

    folder = tmp_path_factory.mktemp("built")
    for i in range(12):
        file = folder / "audio" / "abc"[i % 3] / f"{i:02}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0 if i == 9 else i)
        y = 0.1 * rng.standard_normal(2400 + 400 * (i % 9))
        sf.write(file, y, 11025 if i == 5 else 8000, subtype="PCM_16")
    (folder / "audio" / "broken.wav").write_bytes(b"RIFF broken")
    manifest = scan(folder / "audio", label="parent", split={"train": 0.7, "test": 0.3})
    build = Build(
        root=folder / "root", plan=Plan(Recipe.from_dict(SMALL), manifest, 1.0), tracking_uri=""
    )
    assert luigi_engine.run(build, workers=1, log=False).succeeded
    return build


HOSTILE = "<script>document.title = 'hacked'</script>\x1b[31m"


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> "Build":
    """A published feature set to report on: noise, and a clip each that is silent, clipped, unlike
    the others, longer, broken; ids and labels of some are HTML and terminal escapes."""
    from basilar.pipeline.build import luigi_engine
    from basilar.pipeline.build.build import Build
    from basilar.pipeline.manifests.scan import scan
    from basilar.pipeline.plan import Plan

    folder = tmp_path_factory.mktemp("mixed")
    audio = folder / "audio"
    audio.mkdir()
    rng = np.random.default_rng(1)
    signals = {f"{i:02}": 0.1 * rng.standard_normal(3200 + 160 * i) for i in range(18)}
    signals["silent"] = np.zeros(4000)
    signals["clipped"] = np.clip(0.7 * rng.standard_normal(4000), -1, 1)
    signals["tone"] = 0.9 * np.sin(np.arange(4000) * 0.8)
    signals["long"] = 0.1 * rng.standard_normal(48_000)
    lines = []
    for i, (name, y) in enumerate(signals.items()):
        sf.write(audio / f"{name}.wav", y, 8000, subtype="PCM_16")
        label = ["up", "down", HOSTILE][i % 3]
        clip_id = f"{HOSTILE}{i}" if i < 3 else name
        split = "train" if i % 4 else "test"
        clip = {"id": clip_id, "path": f"{name}.wav", "label": label, "split": split}
        lines.append(json.dumps({**clip, "group": f"speaker {i % 5}"}))
    (audio / "broken.wav").write_bytes(b"RIFF broken")
    lines.append(json.dumps({"id": f"broken {HOSTILE}", "path": "broken.wav", "label": "up"}))
    (folder / "clips.jsonl").write_text("\n".join(lines))
    manifest = scan(folder / "clips.jsonl", root=audio)
    build = Build(
        root=folder / "root", plan=Plan(Recipe.from_dict(SMALL), manifest, 4.0), tracking_uri=""
    )
    assert luigi_engine.run(build, workers=1, log=False).succeeded
    return build


@pytest.fixture
def root(built: "Build", tmp_path: Path) -> Path:
    """A copy of the root of `built`, to damage; what is linked in it stays linked."""
    subprocess.run(["cp", "-a", built.root, tmp_path / "root"], check=True)
    return tmp_path / "root"


@pytest.fixture
def basilar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: (exit code, standard output, standard error)."""
    from basilar.pipeline import cli, text

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["basilar", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        text.begin([])  # --debug is of this command alone
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def as_json(basilar: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, Any]]:
    """Run the command with --json: (exit code, the object on standard output)."""

    def run(*arguments: object) -> tuple[int, Any]:
        code, out, _ = basilar(*arguments, "--json")
        assert out.count("\n") == 1
        return code, json.loads(out)

    return run


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all builds: making its tables takes longer than a build."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("tracker")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(uri).create_experiment("basilar", artifact_location=(folder / "runs").as_uri())
    return uri
