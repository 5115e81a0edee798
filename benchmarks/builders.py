"""What is timed against what: builds of log-mels from MP3s, ours and others'.

Each is called with a manifest of the files and a folder to write to, which is not there yet. A
module of their own, because the processes they start import it.
"""

from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

RECIPE = Path(__file__).resolve().parents[1] / "params" / "log_mel.toml"
RATE, N_FFT, HOP, MELS = 22050, 2048, 512, 128


def ours(manifest: Path, out: Path) -> None:
    from basilar.pipeline.build import luigi_engine
    from basilar.pipeline.build.build import Build
    from basilar.pipeline.manifests.manifest import Manifest
    from basilar.pipeline.plan import Plan
    from basilar.pipeline.recipes.recipe import Recipe
    from basilar.pipeline.tracking.location import embedded_tracking_uri

    plan = Plan(Recipe.load(RECIPE), Manifest.read(manifest))
    build = Build(root=out, plan=plan, tracking_uri=embedded_tracking_uri(out))
    assert luigi_engine.run(build, workers=2, log=False).succeeded


def bare_loop(manifest: Path, _: Path) -> None:
    with Pool(2) as pool:
        for _frames in pool.imap_unordered(_bare, audio(manifest)):
            pass


def _bare(file: Path) -> int:
    import soundfile
    import soxr

    from basilar.dsp.compress import Log
    from basilar.dsp.framing import Framing
    from basilar.dsp.mel import MelBank
    from basilar.dsp.representations import log_mel

    stereo, rate = soundfile.read(file, dtype="float32")
    mono = (stereo[:, 0] + stereo[:, 1]) * np.float32(0.5)
    y = soxr.resample(mono, rate, RATE, quality="VHQ")
    return len(
        log_mel(
            [y],
            sample_rate=RATE,
            framing=Framing(N_FFT, HOP),
            bank=MelBank(MELS),
            power=2,
            log=Log(top_db=80.0),
        )[0]
    )


def by_librosa(file: Path) -> Any:
    import librosa

    y, _ = librosa.load(file, sr=RATE)
    mel = librosa.feature.melspectrogram(y=y, sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=MELS)
    return librosa.power_to_db(mel).T


def with_joblib(manifest: Path, out: Path) -> None:
    from joblib import Parallel, delayed, parallel_config

    out.mkdir()
    saved = (delayed(_save)(file, out / f"{file.stem}.npy") for file in audio(manifest))
    with parallel_config("loky", idle_worker_timeout=10):  # 300 by default: they hold up our exit
        Parallel(n_jobs=2)(saved)


def _save(file: Path, target: Path) -> None:
    np.save(target, by_librosa(file))


def with_datasets(manifest: Path, out: Path) -> None:
    from datasets import Array2D, Dataset, Features, Value

    files = Dataset.from_dict({"path": list(map(str, audio(manifest)))})
    features = Features({"path": Value("string"), "features": Array2D((None, MELS), "float32")})
    out.mkdir()
    files.map(
        lambda row: {"features": by_librosa(row["path"])},
        num_proc=2,
        features=features,
        cache_file_name=str(out / "features.arrow"),
    )


def with_lhotse(manifest: Path, out: Path) -> None:
    """The recordings, too, are looked at before, by `prepared`."""
    import torch
    from lhotse import CutSet, Fbank, FbankConfig

    torch.set_num_threads(1)  # as its warning says
    config = FbankConfig(
        sampling_rate=RATE, num_filters=MELS, frame_length=N_FFT / RATE, frame_shift=HOP / RATE
    )
    cuts = CutSet.from_file(manifest.with_suffix(".cuts.jsonl.gz")).resample(RATE)
    cuts.compute_and_store_features(
        Fbank(config), storage_path=out, num_jobs=2, progress_bar=False
    ).to_file(out.with_suffix(".jsonl.gz"))


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    "bare loop": bare_loop,
    "ours": ours,
    "librosa, joblib": with_joblib,
    "lhotse": with_lhotse,
    "datasets": with_datasets,
}
NEEDS = {"librosa, joblib": "librosa", "lhotse": "lhotse", "datasets": "datasets"}


def audio(manifest: Path) -> list[Path]:
    from basilar.pipeline.manifests.manifest import Manifest

    known = Manifest.read(manifest)
    return [known.root / path for path in known.column("path")]


def prepared(files: list[Path], manifest: Path) -> None:
    """Look at the files as each contender does it once: a manifest, and Lhotse's cuts."""
    import pyarrow as pa

    from basilar.pipeline.manifests.manifest import Manifest
    from basilar.pipeline.manifests.scan import scan
    from basilar.pipeline.manifests.table import CLIP_COLUMNS

    found = scan(files[0].parent)
    names = {file.name for file in files}
    rows = [row for row in found.table.to_pylist() if row["path"] in names]
    Manifest(found.root, pa.Table.from_pylist(rows, CLIP_COLUMNS)).write(manifest)


def cut(files: list[Path], manifest: Path) -> None:
    """The first channel alone: Lhotse decodes a file once for each channel that it mixes."""
    from lhotse import CutSet, Recording, RecordingSet

    recordings = RecordingSet.from_recordings(map(Recording.from_file, files))
    cuts = CutSet.from_manifests(recordings=recordings)
    first = CutSet.from_cuts(cut.to_mono()[0] for cut in cuts)
    first.to_file(manifest.with_suffix(".cuts.jsonl.gz"))
