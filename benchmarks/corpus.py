"""Feature sets of real music of any size, and the same values as peers keep them.

The music beside the repository is short: a manifest of overlapping excerpts makes as much of it as
is asked for. What is built stays in its folder, and the next run finds it there.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from basilar import FeatureSet
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.tracking.location import embedded_tracking_uri

MUSIC = Path(__file__).resolve().parents[2] / "shared" / "corpora" / "music"
CODECS = ("none", "compact")
RATE, HOP, MELS = 22050, 128, 128


class Corpus:
    """Log-mels as a feature set of each codec (`paths`), flat rows (`flat`) and tars of .npy."""

    def __init__(
        self, folder: Path, dtype: str, megabytes: int, chunk_kib: int | None = None
    ) -> None:
        self.dtype, self.root = dtype, folder / "root"
        self.folder = folder / f"{dtype}-{megabytes}"
        self.folder.mkdir(parents=True, exist_ok=True)
        row_bytes = MELS * np.dtype(dtype).itemsize
        seconds = megabytes * 2**20 / row_bytes * HOP / RATE
        compact = {} if chunk_kib is None else {"chunk_kib": chunk_kib}
        self.paths = {
            "none": self._built("none", seconds, {"codec": "none"}),
            "compact": self._built(
                f"compact{chunk_kib or ''}", seconds, {"codec": "compact", **compact}
            ),
        }
        self.flat, self.tars = self.folder / "rows.bin", self.folder / "tars"
        fs = FeatureSet.open(self.paths["none"])
        if not self.flat.exists():
            with (part := self.flat.with_suffix(".part")).open("wb") as file:
                for x in fs:
                    x.tofile(file)
            part.rename(self.flat)
        if find_spec("webdataset") and not self.tars.exists():
            import webdataset

            (part := self.tars.with_suffix(".part")).mkdir(exist_ok=True)
            with webdataset.ShardWriter(f"{part}/%03d.tar", maxsize=1e8, verbose=0) as writer:
                for i, x in enumerate(fs):
                    writer.write({"__key__": f"{i:06}", "npy": x})
            part.rename(self.tars)

    def _built(self, name: str, seconds: float, store: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.zarr"
        if not path.exists():
            log_mel = {"kind": "log_mel", "n_fft": 512, "hop_length": HOP, "n_mels": MELS}
            recipe = Recipe.from_dict(
                {
                    "resample": {"sample_rate": RATE},
                    "representation": {**log_mel, "dtype": self.dtype},
                    "normalization": {"kind": "standard", "split": "all"},
                    "store": store,
                }
            )
            plan = Plan(recipe, excerpts(seconds))
            build = Build(root=self.root, plan=plan, tracking_uri=embedded_tracking_uri(self.root))
            if not luigi_engine.run(build, workers=os.cpu_count() or 1).succeeded:
                raise SystemExit(f"{self.root}: the build failed")
            build.store.rename(path)  # both have one key: make room for the other
        return path


def excerpts(seconds: float) -> Manifest:
    """Excerpts of 4 to 20 s, each from a random place of a random file; `seconds` in all."""
    manifest = scan(MUSIC)
    rng = np.random.default_rng(0)
    lengths = np.array(manifest.seconds) - 0.05  # headers may promise a little too much
    files, rows, left = manifest.table.to_pylist(), [], seconds
    while left > 0:
        i = int(rng.choice(np.flatnonzero(lengths > 4)))
        duration = round(rng.uniform(4, min(20, lengths[i])), 3)
        offset = round(rng.uniform(0, lengths[i] - duration), 3)
        place = {"id": f"{len(rows):06}", "offset": offset, "duration": duration}
        rows.append({**files[i], **place})
        left -= duration
    return Manifest(MUSIC, pa.Table.from_pylist(rows, CLIP_COLUMNS))
