"""Why a planned build is not cached: what differs from the nearest set that is published."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from basilar.pipeline.recipes.hashes import STAGES

if TYPE_CHECKING:
    from basilar.pipeline.build.build import Build
from basilar.pipeline.records.explain import Side, Why, described, nearest, shown


def explain(build: "Build") -> tuple[str | None, dict[str, list[str]]]:
    """Why each stage of a planned build is not cached: the nearest key, and reasons by stage."""
    plan, work = build.plan, build.work(begun=False)
    pending = [*(stage for stage in STAGES if work.pending[stage])]
    pending += [] if work.published else ["normalization"]
    near = nearest(build.root, Side.of_plan(plan))
    if near is None:
        return None, {stage: ["nothing was published under this root before"] for stage in pending}
    record, found = near
    seconds = record.attributes["shard_seconds"], plan.shard_seconds
    return record.key, {stage: list(_reasons(found, stage, seconds)) for stage in pending}


def _reasons(found: Why, stage: str, shard_seconds: tuple[float, float]) -> Iterator[str]:
    """What differs that a stage depends on."""
    order = (*STAGES, "normalization")
    upto, any_reason = order[: order.index(stage) + 1], False
    fields = {name: pair for name, pair in found.recipe.items() if name.split(".")[0] in upto}
    fields |= {f"op {name}": pair for name, pair in found.op_versions.items() if name in upto}
    fields |= {f"decoder of {name}": pair for name, pair in found.decoders.items()}
    if stage == "representation":
        fields |= {name: pair for name, pair in found.unhashed.items() if name != "name"}
    if stage in STAGES and shard_seconds[0] != shard_seconds[1]:
        fields["shard_seconds"] = shard_seconds
    for name, (a, b) in fields.items():
        any_reason = True
        words = found.brought.get(name.removeprefix("op ")) if name.startswith("op ") else ""
        yield f"{name}: {shown(a)} → {shown(b)}" + (f" ({words})" if words else "")
    for group, clips in found.clips.items():
        if stage == "normalization" or group in ("added", "removed", "changed"):
            any_reason = True
            yield f"clips {group}: {', '.join(described(group, clips))}"
    if not any_reason:
        yield "nothing differs: what was made was removed, lacks clips, or is not kept (--keep)"
