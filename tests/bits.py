"""The digest of every shipped recipe over a fixed set of clips: `python -m tests.bits`.

Prints one line a recipe. Runs in any supported combination of libraries, and imports nothing but
what a deployment has, so that `make bits` can compare them.
"""

import hashlib
import json
from pathlib import Path
from typing import get_args

import numpy as np

from basilar.dsp.resample import Method, resample
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.recipes.recipe import Recipe

PARAMS = Path(__file__).resolve().parents[1] / "params"


def clips() -> list[tuple[np.ndarray, int]]:
    """Signals and their rates, from integers alone: what they are depends on no library."""
    made = []
    for seed, (n_samples, rate) in enumerate([(30_001, 44100), (8000, 8000), (12_001, 48000)]):
        n = np.arange(n_samples, dtype=np.int64)
        saw = (n * n // (311 + 60 * seed)) % 2048 - 1024
        noise = (n * (1103515245 + 2 * seed) + 12345) // 65536 % 2048 - 1024
        y = ((saw * 4 + noise) * (n % 9000 < 8000) / 8192).astype(np.float32)
        made.append((y, rate))
    return made


def digests() -> dict[str, str]:
    found = {}
    for file in sorted(PARAMS.glob("*.toml")):
        transform = Transform(Recipe.load(file))
        sha256 = hashlib.sha256()
        for y, rate in clips():
            sha256.update(transform.apply(y, sample_rate=rate).tobytes())
        found[file.stem] = sha256.hexdigest()
    for method in get_args(Method):
        sha256 = hashlib.sha256()
        for y, rate in clips():
            for sample_rate in (8000, 16000, 22050):
                out = resample(y, source_rate=rate, sample_rate=sample_rate, method=method)
                sha256.update(out.tobytes())
        found[f"resample {method}"] = sha256.hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps(digests(), indent=1))
