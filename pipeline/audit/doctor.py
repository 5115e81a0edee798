"""Check whether Basilar works here: libraries, decoders, canaries, file system, tracker."""

import contextlib
import io
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

from basilar.dsp import kernel
from basilar.dsp.framing import Framing
from basilar.dsp.kernel import native, twin
from basilar.pipeline import audio, errors, host, storage
from basilar.pipeline.compute import canary
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.storage import atomic, files, locks

State = Literal["ok", "warning", "failed"]
LIBRARIES = ("basilar", *host.CORE)
# The formats and codecs that libsndfile and FFmpeg must read, by the libraries' own names.
SNDFILE = ("WAV", "W64", "RF64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
FFMPEG = (
    *("aac", "alac", "wmav2", "opus", "vorbis", "flac", "mp3", "ac3", "ape", "wavpack", "tta"),
    "amrnb",
)
_OLDEST_PYTHON = (3, 11)
_LITTLE_SPACE = 1 << 30  # bytes
_TIMEOUT = 3.0  # seconds


@dataclass(frozen=True)
class Check:
    """The result of a check; unless it is ok, the message ends with what to do."""

    name: str
    state: State
    message: str


def checks(root: Path | None = None, tracking_uri: str = "") -> Iterator[Check]:
    """Run all checks, one after the other; those of a root or a tracker only if it is given.

    >>> next(iter(checks())).name
    'python'
    """
    yield _python()
    yield _libraries()
    yield _extras()
    yield from _decoders()
    yield from _canaries()
    yield _kernel()
    if root is not None:
        yield from _root(root)
    if tracking_uri:
        yield _tracker(tracking_uri)


def _python() -> Check:
    said = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info >= _OLDEST_PYTHON:
        return Check("python", "ok", said)
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    return Check("python", "failed", f"{said}: too old; install Python {oldest} or a newer one")


def _libraries() -> Check:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        said = f"{', '.join(missing)} missing: pip install basilar again"
        return Check("libraries", "failed", said)
    return Check("libraries", "ok", ", ".join(found))


def _extras() -> Check:
    """What is there of the libraries that extras bring; none of them is a must."""
    said = []
    for extra, names in host.EXTRAS.items():
        missing = host.missing(extra)
        there = ", ".join(f"{name} {version(name)}" for name in names if name not in missing)
        lacks = f"not installed: {', '.join(missing)} (pip install 'basilar[{extra}]')"
        said.append(f"{extra}: {'; '.join(filter(None, (there, lacks if missing else '')))}")
    return Check("extras", "ok", " | ".join(said))


def _decoders() -> Iterator[Check]:
    """Check what both decoders claim to read, and that they read files which are written here."""
    import av
    import soundfile as sf

    for name, known, needed in (
        ("libsndfile", sf.available_formats(), SNDFILE),
        ("ffmpeg", av.codecs_available, FFMPEG),
    ):
        missing = [each for each in needed if each not in known]
        if missing:
            said = f"cannot read {', '.join(missing)}: install the wheels of soundfile and av"
            yield Check(name, "warning", said)
        else:
            decoder: audio.Decoder = "soundfile" if name == "libsndfile" else "ffmpeg"
            yield Check(name, "ok", f"{audio.identity(decoder)} reads {', '.join(needed)}")
    y = canary.signal(8820)
    transform = Transform.from_recipe({"representation": {"kind": "waveform"}})
    for suffix, container, largest in (
        *(("wav", "WAV", 1e-4), ("flac", "FLAC", 1e-4)),
        *(("ogg", "OGG", 0.5), ("mp3", "MP3", 0.5)),
    ):

        def decoded(
            suffix: str = suffix, container: str = container, largest: float = largest
        ) -> str:
            written = io.BytesIO()
            sf.write(written, y, canary.SAMPLE_RATE, format=container)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"signal.{suffix}"
                file.write_bytes(written.getvalue())
                back, rate = transform.decode(file)
            if rate != canary.SAMPLE_RATE or back.size != y.size:
                raise ValueError(f"{back.size} samples at {rate} Hz were decoded, not {y.size}")
            if (error := float(np.abs(back - y).max())) > largest:
                raise ValueError(f"decoded samples are wrong by {error:.2g}")
            return f"{back.size} samples were decoded, wrong by at most {error:.1g}"

        yield _tried(f"decode {suffix}", decoded, "install the wheel of soundfile again")


def _canaries() -> Iterator[Check]:
    """Check that each stage computes the same numbers as when it was released."""
    good = 0
    for name, _ in canary.names():
        try:
            warning = canary.check(name)
        except errors.CanaryError as error:
            yield Check(f"canary {name}", "failed", str(error))
            continue
        if warning:
            yield Check(f"canary {name}", "warning", warning)
        good += not warning
    said = f"{good} stages compute the same numbers as when they were released"
    yield Check("canaries", "ok", said)


def _kernel() -> Check:
    """Say what computes frames, and how much faster or slower the other is."""
    y = canary.signal()
    framing = Framing(n_fft=2048, hop_length=512)
    program = kernel.Program(framing.table, framing.hop_length, framing.length)
    out = np.empty((program.n_frames(y.size), program.width), np.float32)

    def seconds(plan: kernel.Plan) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            plan.run((y,), out)
            times.append(time.perf_counter() - started)
        return min(times)

    if not native.is_there():
        advice = "install a C compiler, and then basilar again"
        said = "NumPy: the kernel in C was not compiled, which gives the same bits many times as"
        return Check("kernel", "warning", f"{said} fast; {advice}")
    ratio = seconds(twin.Plan(program)) / seconds(native.plan(program))
    lanes = f"C, {native.widths()[-1]} frames at once, {ratio:.0f} times as fast as NumPy"
    if kernel.in_use() == "C":
        return Check("kernel", "ok", lanes)
    said = f"NumPy, since BASILAR_KERNEL is set; there is {lanes}: unset it"
    return Check("kernel", "warning", said)


def _root(root: Path) -> Iterator[Check]:
    """Check what the file system of a root can do, in a temporary folder there."""
    if storage.is_remote(root):
        yield from _object_store(root)
        return
    if not root.is_dir():
        yield Check("root", "failed", f"{root}: no such folder; name one, or make it")
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=root))
    except OSError as error:
        yield Check("root", "failed", f"it cannot be written to ({error}): check its permissions")
        return
    try:
        yield Check("root", "ok", f"{root} can be written to")
        free = shutil.disk_usage(root).free
        said = f"{free / 1e9:.1f} GB"
        advice = "" if free > _LITTLE_SPACE else ": not much; basilar gc lists what can be removed"
        yield Check("free space", "warning" if advice else "ok", said + advice)
        yield from _file_system(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    stale = list(atomic.leftovers(root))
    try:
        with locks.alone(root):
            pass
    except errors.BusyError as error:
        yield Check("at work", "warning", str(error))
    else:
        yield Check("at work", "ok", "no build is running there")
        if stale:
            said = f"{len(stale)} were left by killed processes; the next build removes them"
            yield Check("temporaries", "warning", said)
        else:
            yield Check("temporaries", "ok", "none are left")


def _object_store(root: Path) -> Iterator[Check]:
    """Check what the object store of a root can do, with an object made for this."""
    file = root / f".doctor-{uuid.uuid4().hex}.json"

    def round_trip() -> str:
        files.write_json(file, "one")
        storage.drop(file)
        if files.read_json(file) != "one":
            raise OSError("it does not return what was written")
        return f"{storage.name(root)} can be written to and read from"

    def listing() -> str:
        if storage.children(root, file.name) != [file]:
            raise OSError(f"{file.name} was written but is not listed")
        return "its objects can be listed"

    def create_only() -> str:
        with contextlib.suppress(FileExistsError):
            storage.create(file, b"two")
            raise OSError("it overwrites existing objects")
        return "several machines may build the same set"

    def removal() -> str:
        storage.remove(file)
        if storage.exists(file):
            raise OSError(f"{storage.name(file)} is still there")
        return "its objects can be removed"

    rights = "check the permissions of your credentials"
    tried = _tried("root", round_trip, f"check its name, and {rights}")
    yield tried
    if tried.state != "ok":
        return
    yield _tried("listing", listing, f"gc, verify and ls need it; {rights}")
    alone = "let only one machine at a time build a set there"
    yield _tried("create-only", create_only, alone, state="warning")
    yield _tried("removal", removal, f"gc needs it; {rights}", state="warning")


def _file_system(folder: Path) -> Iterator[Check]:
    one, two = folder / "one", folder / "two"

    def rename_over() -> str:
        one.write_bytes(b"1")
        two.write_bytes(b"2")
        one.replace(two)
        if one.exists() or two.read_bytes() != b"1":
            raise OSError("the old file is still there")
        return "a file replaces another atomically"

    def hard_link() -> str:
        os.link(two, one)
        if one.stat().st_nlink != 2:
            raise OSError("the link is a copy")
        return "published sets share the bytes of their shards"

    def fsync() -> str:
        with two.open("r+b") as file:
            os.fsync(file.fileno())
        atomic.fsync_folder(folder)
        return "files and folders can be flushed to disk"

    def lock() -> str:
        import fcntl

        with two.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 << 40)
        return "simultaneous builds share their work"

    local = "use a root on another file system"
    yield _tried("rename", rename_over, local)
    costs = "published sets are copies and need twice the space"
    yield _tried("hard links", hard_link, f"{costs}; {local} to save it", state="warning")
    yield _tried("fsync", fsync, local)
    alone = "let only one build at a time run there"
    yield _tried("locks", lock, f"{alone}, and remove by hand what gc would", state="warning")


def _tracker(uri: str) -> Check:
    """Check that the tracker's server answers, or that its database's folder can be written to."""
    parts = urlsplit(uri)

    def answers() -> str:
        if parts.scheme in ("http", "https"):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            with contextlib.closing(
                socket.create_connection((parts.hostname or "", port), timeout=_TIMEOUT)
            ):
                return f"{uri} answers"
        if parts.scheme in ("sqlite", "file", ""):
            place = Path(parts.path.removeprefix("/") if parts.scheme == "sqlite" else parts.path)
            existing = next(folder for folder in (place, *place.parents) if folder.exists())
            if not os.access(existing, os.W_OK):
                raise OSError(f"{existing} cannot be written to")
            return f"{uri} can be written to"
        return f"{uri} is of a kind that is only tried by a build"

    advice = "start it, or name another; builds succeed without it, and the next one logs the set"
    return _tried("tracker", answers, advice)


def _tried(name: str, attempt: Callable[[], str], advice: str, *, state: State = "failed") -> Check:
    """The result of an attempt; if it raises an error, with the advice."""
    try:
        return Check(name, "ok", attempt())
    except Exception as error:  # a broken library raises what it likes
        return Check(name, state, f"{type(error).__name__}: {error}; {advice}")
