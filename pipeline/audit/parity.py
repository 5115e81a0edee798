"""Check that all ways from audio to features give the same bits as training reads.

The stored features, normalized, are compared with those of: the pipeline's transform; the stream,
cut at random; the bundle, in a process that cannot import packages a bundle does not need; its
MLflow model; and that model, served.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from basilar.dsp.representations import Features
from basilar.pipeline import storage
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.process import configure
from basilar.pipeline.records.locate import locate
from basilar.pipeline.records.record import Record
from basilar.pipeline.training.feature_set import FeatureSet

_NOT_IN_A_BUNDLE = (
    *("luigi", "mlflow", "zarr", "numcodecs", "pandas", "pyarrow", "filelock", "google_crc32c"),
    *("typer", "rich", "tomli_w", "sklearn", "torch"),
)
_BARE = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
import numpy
from basilar.pipeline.deployment.bundle import Bundle
bundle = Bundle.load(sys.argv[2])
for file, clip in json.loads(sys.stdin.read()).items():
    numpy.save(file, bundle.transform_file(clip.pop("path"), **clip), allow_pickle=False)
"""
_PATIENCE = 120  # seconds for a server to start


class Way(NamedTuple):
    """The result of one way: `difference` is the largest, or None if nothing can be compared.

    `cannot` is whether this recipe has no such way; the `note` says why.
    """

    name: str
    identical: bool
    difference: float | None
    note: str = ""
    cannot: bool = False


class Clip(NamedTuple):
    """The place of a clip's audio: a file, or an excerpt of one, in seconds."""

    path: Path
    offset: float
    duration: float | None


def parity(record: Record, *, n_clips: int, audio_root: Path | None = None) -> list[Way]:
    """Compare all ways on some clips of a feature set, spread evenly over it.

    Raises ValueError for a record without a store, MissingAudioError if audio cannot be found.
    """
    fs = record.open()
    rows = np.unique(np.linspace(0, len(fs) - 1, n_clips).astype(np.int64)).tolist()
    needed = {fs.clips["content"][row] for row in rows}
    manifest = locate(record.manifest, audio_root, needed=needed)
    clips = [_clip(manifest, fs.clips["content"][row]) for row in rows]
    expected = [fs.normalize(fs[row]) for row in rows]
    transform = Transform(fs.typed_recipe)
    ways = {
        "pipeline": lambda: [
            fs.normalize(transform.apply_file(path, offset=offset, duration=duration))
            for path, offset, duration in clips
        ],
    }
    streamed = _way("stream", lambda: [_streamed(fs, transform, clip) for clip in clips], expected)
    if not transform.recipe.representation.is_framewise:
        streamed = streamed._replace(cannot=True)
    with tempfile.TemporaryDirectory(prefix="basilar-") as name:
        folder = Path(name)
        write_bundle(folder / "bundle", fs, manifest=manifest, clips=0)
        _save_model(folder, fs)
        requests = [_request(transform, clip) for clip in clips]
        ways |= {
            "bundle, bare": lambda: _bare(folder / "bundle", clips),
            "MLflow model": lambda: _predicted(folder / "model", requests),
            "served model": lambda: _served(folder / "model", requests),
        }
        return [*(_way(name, compute, expected) for name, compute in ways.items()), streamed]


def _way(name: str, compute: Callable[[], Features], expected: Features) -> Way:
    try:
        found = compute()
    except ValueError as error:
        return Way(name, False, None, str(error))
    differences = []
    for x, y in zip(found, expected, strict=True):
        if x.shape != y.shape:
            return Way(name, False, None, f"shape {x.shape} instead of {y.shape}")
        differences.append(float(np.abs(x.astype(y.dtype) - y).max()))
    same = all(
        x.astype(y.dtype).tobytes() == y.tobytes() for x, y in zip(found, expected, strict=True)
    )
    return Way(name, same, max(differences))


def _clip(manifest: Manifest, content: str) -> Clip:
    row = manifest.contents.index(content)
    path, offset, duration = (manifest.column(n)[row] for n in ("path", "offset", "duration"))
    return Clip(storage.fetch(manifest.root / path), offset or 0.0, duration)


def _streamed(fs: FeatureSet, transform: Transform, clip: Clip) -> NDArray[Any]:
    """The features of the clip, streamed in pieces of random lengths."""
    y, sample_rate = transform.decode(clip.path, offset=clip.offset, duration=clip.duration)
    stream = transform.stream(sample_rate)
    cuts = np.sort(np.random.default_rng(y.size).integers(0, y.size + 1, 20))
    pieces = [stream.push(piece) for piece in np.split(y, cuts)]
    return fs.normalize(np.concatenate([*pieces, stream.finish()]))


def _bare(bundle: Path, clips: list[Clip]) -> Features:
    """The features from the bundle in another process, without packages that it does not need."""
    outputs = [bundle.parent / f"{number}.npy" for number in range(len(clips))]
    asked = {
        str(output): {"path": str(path), "offset": offset, "duration": duration}
        for output, (path, offset, duration) in zip(outputs, clips, strict=True)
    }
    blocked = json.dumps(_NOT_IN_A_BUNDLE)
    command = [sys.executable, "-c", _BARE, blocked, str(bundle)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip().splitlines()[-1])
    return [np.load(output, allow_pickle=False) for output in outputs]


def _request(transform: Transform, clip: Clip) -> dict[str, Any]:
    """The clip as a row of a request: the bytes of a file, or the samples of an excerpt."""
    if clip.offset == 0.0 and clip.duration is None:
        return {"audio": base64.b64encode(clip.path.read_bytes()).decode()}
    y, sample_rate = transform.decode(clip.path, offset=clip.offset, duration=clip.duration)
    return {"samples": base64.b64encode(y.tobytes()).decode(), "sample_rate": sample_rate}


def _save_model(folder: Path, fs: FeatureSet) -> None:
    configure()
    from basilar.pipeline.tracking.model import save_model  # imports mlflow

    save_model(folder / "model", folder / "bundle", fs)


def _predicted(model: Path, requests: list[dict[str, Any]]) -> Features:
    from basilar.pipeline.tracking.model import predict

    return [_whole(x) for x in predict(model, requests)]


def _served(model: Path, requests: list[dict[str, Any]]) -> Features:
    with serving(model) as ask:
        return [_whole(np.array(x, np.float32)) for x in ask(requests)]


def _whole(x: NDArray[Any]) -> NDArray[Any]:
    """Features as they are stored: models return complex ones as two real parts."""
    return np.ascontiguousarray(x).view(np.complex64)[..., 0] if x.ndim == 3 else x


@contextmanager
def serving(model: Path) -> Iterator[Callable[[list[dict[str, Any]]], list[Any]]]:
    """Run `mlflow models serve` on a free loopback port; yields a function that sends it rows.

    Raises ValueError if it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = Path(sys.executable).parent
    command = [str(programs / "mlflow"), "models", "serve", "-m", str(model.absolute())]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # It makes a database in its working folder.
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, *options],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            started = time.monotonic()
            while not _answers(port):
                if process.poll() is not None or time.monotonic() - started > _PATIENCE:
                    log.seek(0)
                    raise ValueError(f"mlflow models serve does not answer: {log.read()[-500:]}")
                time.sleep(0.2)
            yield lambda rows: _ask(port, rows)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # the server, and what it started
            process.wait(20)


def _answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
        return True
    return False


def _ask(port: int, rows: list[dict[str, Any]]) -> list[Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"dataframe_records": rows}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        found: list[Any] = json.load(answer)["predictions"]
    return found
