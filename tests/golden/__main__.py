"""Make the golden root of today's store schema: `python -m tests.golden`.

Once made it is never made anew: it stands for what users have stored.
"""

import shutil
from pathlib import Path

import numpy as np
import soundfile as sf

from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.store import schema

RECIPE = {
    "name": "golden",
    "resample": {"sample_rate": 8000},
    "representation": {
        **{"kind": "log_mel", "n_fft": 256, "hop_length": 64, "n_mels": 4, "top_db": 80.0}
    },
    "normalization": {"kind": "standard"},
    "store": {"chunk_kib": 4, "shard_mib": 1},
}


def main() -> None:
    """Three short clips in two shards, and one that cannot be read."""
    root = Path(__file__).parent / f"store-{schema.STORE_SCHEMA}"
    if root.exists():
        raise SystemExit(f"{root} is there; raise STORE_SCHEMA in pipeline/store/schema.py first")
    (root / "audio").mkdir(parents=True)
    for i in range(3):
        y = 0.1 * np.random.default_rng(i).standard_normal(1600 + 400 * i)
        sf.write(root / "audio" / f"{i}.wav", y, 16000 if i == 2 else 8000, subtype="PCM_16")
    (root / "audio" / "broken.wav").write_bytes(b"RIFF broken")
    manifest = scan(root / "audio", split={"train": 0.3, "test": 0.7})
    plan = Plan(Recipe.from_dict(RECIPE), manifest, 0.4)
    assert luigi_engine.run(
        Build(root=root, plan=plan, tracking_uri=""), workers=1, log=False
    ).succeeded
    for name in ("artifacts", "running", ".lock"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
