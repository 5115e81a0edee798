"""Why two feature sets, recipes or manifests differ: all the fields and clips that do.

recipe        fields of the recipe that enter its hash
op_versions   versions of the stages' operations
decoders      the decoders whose versions enter the key
unhashed      name and [store], which no hash depends on
clips         added, removed, changed (another content), relabelled, moved to another split or
              group, renamed (the same content under another id)
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from basilar.pipeline.errors import DamagedArtifactError, IncomparableError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.hashes import OpVersion, op_versions, what_changed
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import Record, find_record, recorded_keys

Pair = tuple[Any, Any]


SHOWN = 20  # clips of each group that are named


_SAID = ("relabelled", "other_split", "other_group")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a feature set has every field, a recipe or manifest its own."""

    name: str
    recipe: Recipe | None = None
    manifest: Manifest | None = None
    versions: dict[str, OpVersion] | None = None
    decoders: list[str] | None = None

    @classmethod
    def of_record(cls, record: Record) -> "Side":
        """A feature set that was published."""
        a = record.attributes
        name = record.key[:12]
        return cls(name, record.recipe, record.manifest, a["op_versions"], a["decoders"])

    @classmethod
    def of_plan(cls, plan: Plan) -> "Side":
        """A feature set that is planned."""
        return cls(plan.key[:12], plan.recipe, plan.manifest, plan.op_versions, plan.decoders)

    @classmethod
    def of_file(cls, file: Path) -> "Side":
        """A manifest (.parquet) or a recipe (.toml, or the name of a shipped one)."""
        if file.suffix == ".parquet":
            return cls(str(file), manifest=Manifest.read(file))
        recipe = Recipe.load(file)
        return cls(str(file), recipe, versions=op_versions(recipe))


class ClipChange(NamedTuple):
    """The change of a clip: `a` and `b` are its label, split, group or id on each side."""

    id: str
    a: str | None = None
    b: str | None = None


@dataclass(frozen=True)
class Why:
    """All differences between `a` and `b`; clips are grouped by the kind of change."""

    a: str
    b: str
    recipe: dict[str, Pair]
    op_versions: dict[str, Pair]
    decoders: dict[str, Pair]
    unhashed: dict[str, Pair]
    clips: dict[str, list[ClipChange]]
    brought: dict[str, str]
    """By stage, what its newer op version brought, in words."""

    @cached_property
    def count(self) -> int:
        """The number of fields and clips that differ."""
        fields = (self.recipe, self.op_versions, self.decoders, self.unhashed)
        return sum(map(len, fields)) + sum(map(len, self.clips.values()))

    def as_dict(self) -> dict[str, Any]:
        """All differences as JSON; of each group, the number of clips and the first ones."""
        groups = {
            group: {"count": len(found), "clips": [clip._asdict() for clip in found[:SHOWN]]}
            for group, found in self.clips.items()
        }
        fields = ("a", "b", "recipe", "op_versions", "decoders", "unhashed")
        return {"equal": not self.count, **{n: getattr(self, n) for n in fields}, "clips": groups}

    def lines(self) -> list[str]:
        """All differences as the lines of a tree."""
        if not self.count:
            return [f"{self.a} and {self.b} are equal"]
        tree: dict[str, Any] = {}
        for part in ("recipe", "op_versions", "decoders", "unhashed"):
            for field, (a, b) in getattr(self, part).items():
                branch = tree.setdefault(part, {})
                *sections, leaf = field.split(".")
                for section in sections:
                    branch = branch.setdefault(section, {})
                words = f" ({self.brought[field]})" if self.brought.get(field) else ""
                branch[f"{leaf}: {shown(a)} → {shown(b)}{words}"] = {}
        for group, found in self.clips.items():
            branch = tree.setdefault("clips", {}).setdefault(f"{group}: {len(found)}", {})
            branch |= {line: {} for line in described(group, found)}
        return [f"{self.a} → {self.b}", *_branches(tree)]


def why(a: Side, b: Side) -> Why:
    """How `b` differs from `a` in shared fields. Raises IncomparableError if there are none."""
    both_recipes = a.recipe is not None and b.recipe is not None
    both_manifests = a.manifest is not None and b.manifest is not None
    if not (both_recipes or both_manifests):
        raise IncomparableError(
            f"{a.name} and {b.name}: a recipe and a manifest have nothing in common; compare "
            "each with one of its kind, or with a feature set"
        )
    recipe = _fields(a.recipe, b.recipe) if both_recipes else {}
    versions = _pairs(a.versions or {}, b.versions or {}) if both_recipes else {}
    free = {name for name in recipe if name.partition(".")[0] in ("name", "store")}
    return Why(
        a.name,
        b.name,
        recipe={name: pair for name, pair in recipe.items() if name not in free},
        op_versions=versions,
        decoders=_decoders(a.decoders, b.decoders),
        unhashed={name: pair for name, pair in recipe.items() if name in free},
        clips=_clips(a.manifest, b.manifest) if both_manifests else {},
        brought=_brought(b.recipe, versions) if b.recipe is not None else {},
    )


def _brought(recipe: Recipe, versions: dict[str, Pair]) -> dict[str, str]:
    """What changed from one op version of each stage to the other, whichever is newer."""
    return {
        stage: what_changed(recipe, stage, *pair) or what_changed(recipe, stage, *reversed(pair))
        for stage, pair in versions.items()
        if None not in pair
    }


def nearest(root: Path, side: Side, *, but: str = "") -> tuple[Record, Why] | None:
    """The record under a root with the fewest differences, and these; None if there is none."""
    found = []
    for key in recorded_keys(root):
        if key != but:
            with suppress(DamagedArtifactError):  # which basilar verify reports
                record = find_record(root, key)
                found.append((record, why(Side.of_record(record), side)))
    return min(found, key=lambda pair: pair[1].count, default=None)


def _fields(a: Recipe | None, b: Recipe | None) -> dict[str, Pair]:
    """The values that differ between two recipes, by dotted name; None if one lacks the field."""
    assert a is not None
    assert b is not None
    return _pairs(_flatten(a.resolved()), _flatten(b.resolved()))


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _pairs(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Pair]:
    pairs = {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _decoders(a: list[str] | None, b: list[str] | None) -> dict[str, Pair]:
    if a is None or b is None or a == b:
        return {}
    return {"lossy files": (", ".join(a) or None, ", ".join(b) or None)}


def _clips(a: Manifest | None, b: Manifest | None) -> dict[str, list[ClipChange]]:
    """The changes of clips from `a` to `b`, by group; empty groups are left out."""
    assert a is not None
    assert b is not None
    if a.hash == b.hash:
        return {}
    one, two = _by_id(a), _by_id(b)
    groups: dict[str, list[ClipChange]] = defaultdict(list)
    gone_with: dict[str, list[str]] = defaultdict(list)  # ids that are only in a, by content
    for clip_id in one.keys() - two.keys():
        gone_with[one[clip_id][0]].append(clip_id)
    pairs = [(clip_id, clip_id) for clip_id in one if clip_id in two]
    for clip_id in sorted(two.keys() - one.keys()):
        if same := gone_with.get(two[clip_id][0]):
            old = min(same)
            same.remove(old)
            groups["renamed"].append(ClipChange(old, old, clip_id))
            pairs.append((old, clip_id))
        else:
            groups["added"].append(ClipChange(clip_id))
    removed = sorted(clip_id for ids in gone_with.values() for clip_id in ids)
    groups["removed"] = [ClipChange(clip_id) for clip_id in removed]
    for old, new in pairs:
        (content, *said), (content_now, *said_now) = one[old], two[new]
        if content != content_now:
            groups["changed"].append(ClipChange(new))
        for group, x, y in zip(_SAID, said, said_now, strict=True):
            if x != y:
                groups[group].append(ClipChange(new, x, y))
    return {group: found for group, found in groups.items() if found}


def _by_id(manifest: Manifest) -> dict[str, tuple[Any, ...]]:
    columns = (
        manifest.contents,
        manifest.column("label"),
        manifest.splits,
        manifest.column("group"),
    )
    return dict(zip(manifest.column("id"), zip(*columns, strict=True), strict=True))


def described(group: str, clips: list[ClipChange]) -> Iterator[str]:
    """Yield a line for each of the first clips, and one that counts the rest."""
    for clip in clips[:SHOWN]:
        if group == "renamed":
            yield f"{clip.a} → {clip.b}"
        elif group in _SAID:
            yield f"{clip.id}: {shown(clip.a)} → {shown(clip.b)}"
        else:
            yield clip.id
    if len(clips) > SHOWN:
        yield f"… and {len(clips) - SHOWN} more"


def shown(value: Any) -> str:
    """A value as text; None is `none`."""
    return "none" if value is None else str(value)


def _branches(tree: dict[str, Any], indent: str = "") -> Iterator[str]:
    for i, (name, below) in enumerate(tree.items()):
        last = i == len(tree) - 1
        yield f"{indent}{'└─' if last else '├─'} {name}"
        yield from _branches(below, indent + ("   " if last else "│  "))
