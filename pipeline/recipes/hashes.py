"""The recipe hash of each stage, and the key of a feature set.

A recipe hash covers every parameter that changes a number, the op version and the hash of the
previous stage.
"""

from collections.abc import Mapping
from typing import Any

from basilar.dsp import representations, resample
from basilar.pipeline.hashing import hash_of
from basilar.pipeline.recipes.recipe import Recipe

STAGES = ("decode", "resample", "representation")  # of one shard, upstream first

OpVersion = int | str
"""The version of an operation; of an installation that computes other bits, also what tells them
apart: `3 (bits 9f86d081884c)`, `1 (aarch64)`."""


def recipe_hashes(
    recipe: Recipe,
    versions: Mapping[str, OpVersion] | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The recipe hash of each stage; each contains the one before it.

    The last, `normalization`, is the hash of the whole recipe. `versions` are recorded op versions,
    by default those of this installation. `recorded` is the resolved recipe as it was recorded,
    perhaps before a key was added: defaults of keys that it lacks enter no hash.
    """
    hashes: dict[str, str] = {}
    upstream: str | None = None
    for stage, version in (versions or op_versions(recipe)).items():
        parameters = getattr(recipe, stage).hashed()
        if recorded is not None:  # keys without a value are not recorded
            known = recorded.get(stage, {})
            parameters = {n: v for n, v in parameters.items() if n in known or v is None}
        upstream = hash_of(stage, op_version=version, parameters=parameters, upstream=upstream)
        hashes[stage] = upstream
    return hashes


def op_versions(
    recipe: Recipe, deviations: Mapping[str, str] | None = None
) -> dict[str, OpVersion]:
    """The op version of each stage of a recipe, upstream first.

    `deviations` are what this installation computes otherwise, by the name of a canary; those of
    decoders are in the keys of the clips that they decode, as the decoders' versions are.

    >>> recipe = Recipe.from_dict({"representation": {"kind": "mel"}})
    >>> op_versions(recipe, {"representation mel": "bits 9f86"})["representation"]
    '3 (bits 9f86)'
    """
    versions = {
        "decode": 1,
        "resample": resample.VERSIONS[recipe.resample.method],
        "representation": representations.VERSIONS[recipe.representation.kind],
        "normalization": 1,
    }
    found: dict[str, list[str]] = {stage: [] for stage in versions}
    for name, what in sorted((deviations or {}).items()):
        stage = name.split()[0]
        if stage != "decode" and what not in found[stage]:
            found[stage].append(what)
    return {
        stage: f"{version} ({', '.join(found[stage])})" if found[stage] else version
        for stage, version in versions.items()
    }


def released(versions: Mapping[str, OpVersion]) -> dict[str, int]:
    """Op versions without what tells an installation's own bits apart.

    >>> released({"resample": "1 (aarch64)", "representation": 3})
    {'resample': 1, 'representation': 3}
    """
    return {stage: int(str(version).split()[0]) for stage, version in versions.items()}


_STFT = ("stft", "magnitude", "power", "log_magnitude", "decibel", "mel", "log_mel", "mfcc", "pcen")
CHANGES: dict[tuple[str, int], str] = {  # what a version of a kind or a method brought
    **{(kind, 3): "FFT of the kernel" for kind in (*_STFT, "chroma", "spectral")},
    ("mfcc", 4): "cosine transform of the kernel",
    **{
        (kind, 2): "FFT of the kernel" for kind in ("cqt", "cqt_magnitude", "log_cqt", "chroma_cqt")
    },
    **{(method, 2): "sums of the kernel" for method in ("polyphase", "sinc_hann")},
}


def what_changed(recipe: Recipe, stage: str, then: OpVersion, now: OpVersion) -> str:
    """What op versions after `then`, up to `now`, brought a stage of a recipe, in words.

    >>> recipe = Recipe.from_dict({"representation": {"kind": "mfcc"}})
    >>> what_changed(recipe, "representation", 2, 4)
    'FFT of the kernel, cosine transform of the kernel'
    """
    name = {
        "resample": recipe.resample.method,
        "representation": recipe.representation.kind,
    }.get(stage, "")
    pair = released({"then": then, "now": now})
    steps = range(pair["then"] + 1, pair["now"] + 1)
    return ", ".join(CHANGES[name, step] for step in steps if (name, step) in CHANGES)


def feature_key(recipe_hash: str, manifest_hash: str, decoders: list[str]) -> str:
    """The key of a feature set: recipe, manifest, and the decoders of lossy files."""
    return hash_of("features", recipe=recipe_hash, manifest=manifest_hash, decoders=decoders)
