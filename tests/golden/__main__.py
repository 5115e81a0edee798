"""Make a golden root and bundle of what is stored today: `python -m tests.golden N`.

Once made they are never made again: they stand for what users have stored.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.deployment.export import write_bundle
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe

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
    root = Path(__file__).parent / f"store-{sys.argv[1]}"
    if root.exists():
        raise SystemExit(f"{root} is there: take the next number")
    (root / "audio").mkdir(parents=True)
    for i in range(3):
        y = 0.1 * np.random.default_rng(i + 3).standard_normal(1600 + 400 * i)
        sf.write(root / "audio" / f"{i}.wav", y, 16000 if i == 2 else 8000, subtype="PCM_16")
    (root / "audio" / "broken.wav").write_bytes(b"RIFF broken")
    manifest = scan(root / "audio", split={"train": 0.6, "test": 0.4})
    plan = Plan(Recipe.from_dict(RECIPE), manifest, 0.4)
    build = Build(root=root, plan=plan, tracking_uri="", max_bad=1.0)
    outcome = luigi_engine.run(build, workers=1, log=False)
    assert outcome.succeeded, outcome.reasons
    bundle = root.with_name(f"bundle-{sys.argv[1]}")
    write_bundle(bundle, FeatureSet.open(build.store), manifest=manifest, clips=2)
    for name in ("artifacts", "running", ".lock"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
