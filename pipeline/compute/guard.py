"""Before a cache or a bundle is trusted: what this installation computes, by the canaries.

`guard` stops an installation that computes something else. `deviations` are within a canary's
tolerance and yet not identical: keys contain them (`compute.here`), so that none has two sets of
bits.
"""

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from basilar.pipeline import audio, storage
from basilar.pipeline.compute import canary
from basilar.pipeline.compute.canary import Canary
from basilar.pipeline.errors import CanaryError
from basilar.pipeline.recipes.hashes import recipe_hashes
from basilar.pipeline.recipes.kinds.framed import Framed
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import files


class Deviation(NamedTuple):
    """What this installation computes otherwise than was released, within the tolerance.

    `identity` tells its bits apart in keys; the `warning` is empty where that is known beforehand.
    """

    identity: str
    warning: str = ""


def guard(
    recipe: Recipe, *, decoders: Iterable[audio.Decoder] = (), catalogue: Path | None = None
) -> list[str]:
    """Check the stages that a recipe uses, once a process; return the warnings there are.

    With `catalogue`, the folder of a root, also what this very recipe makes of the canary: it is
    kept there the first time and compared from then on. Raises CanaryError.

    >>> guard(Recipe.from_dict({"representation": {"kind": "log_mel"}}))
    []
    """
    found = deviations(recipe, decoders=decoders, catalogue=catalogue)
    if catalogue is not None:  # what was refused is not kept
        _keep(recipe, _kept_file(recipe, catalogue))
    return [deviation.warning for deviation in found.values() if deviation.warning]


def deviations(
    recipe: Recipe,
    *,
    decoders: Iterable[audio.Decoder] = (),
    catalogue: Path | None = None,
    strict: bool = True,
) -> dict[str, Deviation]:
    """What this installation computes otherwise of the stages that a recipe uses, by canary.

    Of decoders the names are `decode` and a key of `audio.VERSIONS`. Nothing is written. Raises
    CanaryError for what is beyond its tolerance, unless it is not `strict`.

    >>> deviations(Recipe.from_dict({"representation": {"kind": "mel"}}), decoders=["soundfile"])
    {}
    """
    found: dict[str, Deviation] = {}
    for decoder in sorted(set(decoders)):
        for codec in canary.FILES[decoder]:
            if deviation := _deviation(f"decode {codec}", strict):
                found[f"decode {canary.PATHS[codec]}"] = deviation
                if codec in canary.LOSSY:  # codecs without a canary may deviate, too
                    found.setdefault(f"decode {decoder}", Deviation(deviation.identity))
    stages = [f"resample {recipe.resample.method}", f"representation {recipe.representation.kind}"]
    kind = recipe.representation
    if isinstance(kind, Framed) and (kind.remove_dc or kind.preemphasis):
        stages += ["representation conditioned"]
    if isinstance(kind, Framed) and kind.dither:
        stages += ["representation dithered"]
    for name in stages:
        if deviation := _deviation(name, strict):
            found[name] = deviation
    if recipe.resample.method == "soxr" and platform.machine() not in ("x86_64", "AMD64"):
        # Too few samples differ for a canary: VHQ one in twenty million.
        found.setdefault("resample soxr", Deviation(platform.machine()))
    if catalogue is not None and storage.exists(file := _kept_file(recipe, catalogue)):
        for name, deviation in _since_kept(recipe, file, strict).items():
            found.setdefault(name, deviation)
    return found


def _deviation(name: str, strict: bool) -> Deviation | None:
    """How one of `names` deviates, if it does."""
    try:
        warning = canary.check(name)
    except CanaryError as error:
        if strict:
            raise
        warning = str(error)
    return _of_bits(canary.made(name), warning) if warning else None


def _of_bits(made: Canary, warning: str) -> Deviation:
    return Deviation(f"bits {made.sha256[:12]}", warning)


def _kept_file(recipe: Recipe, catalogue: Path) -> Path:
    return catalogue / "canaries" / f"{recipe_hashes(recipe)['normalization']}.json"


@cache
def _keep(recipe: Recipe, file: Path) -> None:
    """Record what a recipe makes of the canary, unless that was done before."""
    if not storage.exists(file):
        entries = {name: made.to_json() for name, made in canary.of_recipe(recipe).items()}
        files.write_json(file, {"versions": canary.library_versions(), "canaries": entries})


@cache
def _since_kept(recipe: Recipe, file: Path, strict: bool) -> dict[str, Deviation]:
    """How what a recipe makes of the canary deviates from what a root has kept."""
    then, found = files.read_json(file), {}
    for name, made in canary.of_recipe(recipe).items():
        try:
            warning = canary.compare(
                name,
                made,
                Canary.from_json(then["canaries"][name]),
                versions=then["versions"],
                since=f"the first build of this recipe here ({file})",
                advice="install those versions, or build in another root",
            )
        except CanaryError as error:
            if strict:
                raise
            warning = str(error)
        if warning:
            found[name] = _of_bits(made, warning)
    return found
