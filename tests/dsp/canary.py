"""The canary: a fixed signal, what each representation makes of it, and the hash of that.

Run `python -m tests.dsp.canary` to write `canaries.json` anew after a version was raised.
"""

import hashlib
import json
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from dsp.representations import VERSIONS
from dsp.resample import VERSION as RESAMPLE_VERSION
from dsp.resample import Method, resample
from pipeline.recipe import Recipe

FILE = Path(__file__).with_name("canaries.json")

CONDITIONED = {
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "align": "left",
    "remove_dc": True,
    "preemphasis": 0.97,
}


def signal() -> NDArray[np.float32]:
    """One second at 22,050 Hz: a rising saw, noise and silence, from integers alone.

    No sine, no random generator: nothing that a library could compute otherwise.
    """
    n = np.arange(22050, dtype=np.int64)
    saw = (n * n // 441) % 2048 - 1024
    noise = (n * 1103515245 + 12345) // 65536 % 2048 - 1024
    y = (saw * 4 + noise) * (n < 20000)
    return (y / 8192).astype(np.float32)


def canaries() -> dict[str, dict[str, object]]:
    """By name: the op version, and the hash of what it makes of the signal."""
    y = signal()
    found: dict[str, dict[str, object]] = {}
    recipes: dict[str, dict[str, object]] = {kind: {"kind": kind} for kind in VERSIONS}
    recipes["log_mel conditioned"] = {"kind": "log_mel", **CONDITIONED}
    for name, table in recipes.items():
        recipe = Recipe.from_dict({"representation": table})
        (values,) = recipe.representation.compute([y], sample_rate=22050)
        found[name] = {"version": VERSIONS[str(table["kind"])], "sha256": hash_of(values)}
    for method in get_args(Method):
        resampled = resample(y, source_rate=22050, sample_rate=16000, method=method)
        found[f"resample {method}"] = {"version": RESAMPLE_VERSION, "sha256": hash_of(resampled)}
    return found


def hash_of(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


if __name__ == "__main__":
    FILE.write_text(json.dumps(canaries(), indent=1) + "\n")
