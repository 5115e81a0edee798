import json
from pathlib import Path

import pyarrow as pa
import pytest

from basilar.dsp import representations, resample
from basilar.pipeline.errors import IncomparableError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.table import CLIP_COLUMNS
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes import hashes
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.explain import ClipChange, Side, nearest, why
from basilar.pipeline.records.record import find_record
from tests.conftest import SMALL


def recipe(**sections):
    return Recipe.from_dict({**SMALL, **sections})


def side(a=None, manifest=None, name="side"):
    return Side(name, a, manifest)


def edited(manifest, change):
    """A manifest whose rows, by id, went through a function."""
    rows = {row["id"]: row for row in manifest.table.to_pylist()}
    change(rows)
    made = sorted(rows.values(), key=lambda row: row["id"])
    return Manifest(manifest.root, pa.Table.from_pylist(made, CLIP_COLUMNS))


def mel(**values):
    return {"representation": {**SMALL["representation"], **values}}


def test_what_is_equal_is_said_to_be(built):
    one = Side.of_plan(built.plan)
    found = why(one, one)
    assert found.count == 0
    assert found.as_dict()["equal"] is True
    assert found.lines() == [f"{one.name} and {one.name} are equal"]


def test_fields_of_recipes_with_both_values():
    found = why(side(recipe()), side(recipe(**mel(n_mels=9), resample={"sample_rate": 16000})))
    assert found.recipe == {
        "resample.sample_rate": (8000, 16000),
        "representation.n_mels": (8, 9),
        "representation.fmax": (4000.0, 8000.0),
    }
    assert (found.unhashed, found.op_versions, found.clips) == ({}, {}, {})
    assert found.count == 3


def test_what_no_hash_depends_on_is_kept_apart():
    found = why(side(recipe()), side(recipe(name="other", store={"codec": "compact"})))
    assert found.recipe == {}
    assert found.unhashed == {
        "name": ("small", "other"),
        "store.codec": ("none", "compact"),
        "store.chunk_kib": (1, 32),
        "store.shard_mib": (1, 32),
    }
    assert found.count == 4


def test_a_field_that_one_kind_has_not():
    found = why(side(recipe()), side(recipe(representation={"kind": "waveform"})))
    assert found.recipe["representation.n_fft"] == (256, None)
    assert found.recipe["representation.kind"] == ("log_mel", "waveform")


def test_versions_and_decoders(built):
    one = Side.of_plan(built.plan)
    two = Side(
        "two",
        one.recipe,
        one.manifest,
        {**one.versions, "resample": 7},
        [*one.decoders, "libfoo 1"],
    )
    found = why(one, two)
    assert found.op_versions == {"resample": (1, 7)}
    assert found.decoders["lossy files"][1].endswith("libfoo 1")
    assert found.count == 2


def test_everything_that_can_happen_to_clips(built):
    manifest = built.plan.manifest

    def change(rows):
        del rows["a/00.wav"]  # of which a copy stays
        del rows["a/03.wav"]
        rows["b/01.wav"]["sha256"] = "0" * 64
        rows["b/04.wav"]["label"] = "dog"
        rows["b/07.wav"]["split"] = "valid"
        rows["b/10.wav"]["group"] = "g"
        rows["c/02.wav"]["id"] = "c/other.wav"
        rows["c/05.wav"] |= {"id": "c/both.wav", "label": None}
        rows["new"] = {**rows["c/08.wav"], "id": "new.wav", "sha256": "1" * 64}
        rows["c/08.wav"]["path"] = "elsewhere.wav"  # which no hash depends on

    splits = dict(zip(manifest.column("id"), manifest.splits, strict=True))
    found = why(side(manifest=manifest), side(manifest=edited(manifest, change)))
    assert found.clips == {
        "renamed": [
            ClipChange("c/05.wav", "c/05.wav", "c/both.wav"),
            ClipChange("c/02.wav", "c/02.wav", "c/other.wav"),
        ],
        "added": [ClipChange("new.wav")],
        "removed": [ClipChange("a/00.wav"), ClipChange("a/03.wav")],
        "changed": [ClipChange("b/01.wav")],
        "relabelled": [ClipChange("b/04.wav", "b", "dog"), ClipChange("c/both.wav", "c", None)],
        "other_split": [ClipChange("b/07.wav", splits["b/07.wav"], "valid")],
        "other_group": [ClipChange("b/10.wav", None, "g")],
    }
    assert found.count == 10
    lines = found.lines()
    assert "   ├─ relabelled: 2" in lines
    assert "   │  ├─ b/04.wav: b → dog" in lines
    assert "   │  └─ c/both.wav: c → none" in lines
    assert "   │  ├─ c/05.wav → c/both.wav" in lines
    assert lines[-1] == "      └─ b/10.wav: none → g"


def test_copies_are_renamed_one_by_one(built):
    def change(rows):
        rows["a/00.wav"]["id"], rows["a/09.wav"]["id"] = "x", "y"
        rows["z"] = {**rows["a/00.wav"], "id": "z"}

    manifest = built.plan.manifest
    found = why(side(manifest=manifest), side(manifest=edited(manifest, change))).clips
    assert [(c.a, c.b) for c in found["renamed"]] == [("a/00.wav", "x"), ("a/09.wav", "y")]
    assert found["added"] == [ClipChange("z")]


def test_many_clips_are_counted_and_some_are_named(built):
    row = built.plan.manifest.table.to_pylist()[0]
    rows = [{**row, "id": f"{i:03}", "sha256": f"{i:064}"} for i in range(100)]
    many = Manifest(Path(), pa.Table.from_pylist(rows, CLIP_COLUMNS))
    found = why(side(manifest=many), side(manifest=built.plan.manifest))
    assert found.as_dict()["clips"]["removed"]["count"] == 100
    assert len(found.as_dict()["clips"]["removed"]["clips"]) == 20
    assert any(line.endswith("… and 80 more") for line in found.lines())


def test_the_tree_of_a_recipe():
    found = why(side(recipe(), name="a"), side(recipe(**mel(n_mels=9, window="hamming")), name="b"))
    assert found.lines() == [
        "a → b",
        "└─ recipe",
        "   └─ representation",
        "      ├─ window: hann → hamming",
        "      └─ n_mels: 8 → 9",
    ]


def test_files_and_records_are_sides(built, tmp_path):
    (tmp_path / "r.toml").write_text(recipe().to_toml())
    built.plan.manifest.write(tmp_path / "m.parquet")
    record = Side.of_record(find_record(built.root, built.plan.key))
    assert why(record, Side.of_plan(built.plan)).count == 0
    toml, parquet = (Side.of_file(tmp_path / name) for name in ("r.toml", "m.parquet"))
    assert why(record, toml).count == why(parquet, record).count == 0
    with pytest.raises(IncomparableError, match=r"r\.toml and .*m\.parquet: a recipe and a manif"):
        why(toml, parquet)


def plan_of(built, *, manifest=None, shard_seconds=1.0, **sections):
    return Plan(recipe(**sections), manifest or built.plan.manifest, shard_seconds)


def test_the_nearest_set_is_the_one_that_differs_in_least(built, tmp_path):
    catalogue = tmp_path / "catalogue" / "features"
    catalogue.mkdir(parents=True)
    manifests = tmp_path / "catalogue" / "manifests"
    manifests.mkdir()
    plans = [plan_of(built, **mel(n_mels=n, fmin=f)) for n, f in ((9, 0.0), (9, 5.0), (10, 0.0))]
    for plan in plans:
        attributes = find_record(built.root, built.plan.key).attributes
        made = {
            **attributes,
            **{"key": plan.key, "recipe_hash": plan.hashes["normalization"]},
            "recipe": plan.recipe.resolved(),
        }
        (catalogue / f"{plan.key}.json").write_text(json.dumps(made))
    built.plan.manifest.write(manifests / f"{built.plan.manifest.hash}.parquet")
    (catalogue / ("0" * 32 + ".json")).write_text("{")  # damaged: left out
    record, found = nearest(tmp_path, Side.of_plan(plan_of(built, **mel(n_mels=9, fmin=6.0))))
    assert record.key in (plans[0].key, plans[1].key)
    assert set(found.recipe) == {"representation.fmin"}
    record, found = nearest(tmp_path, Side.of_plan(plans[1]), but=plans[1].key)
    assert record.key == plans[0].key
    assert nearest(tmp_path / "none", Side.of_plan(plans[1])) is None


def test_what_a_newer_version_brought_is_said_in_words():
    of_mfcc = recipe(representation={"kind": "mfcc"})
    versions = hashes.op_versions(of_mfcc)
    old, new = (
        Side(name, of_mfcc, versions=versions | {"representation": version})
        for name, version in (("old", 2), ("new", 4))
    )
    words = "(FFT of the kernel, cosine transform of the kernel)"
    assert f"representation: 2 → 4 {words}" in "\n".join(why(old, new).lines())
    assert f"representation: 4 → 2 {words}" in "\n".join(why(new, old).lines())


def test_every_version_says_what_it_brought():
    newest = [*representations.VERSIONS.items(), *resample.VERSIONS.items()]
    assert {pair for pair in newest if pair[1] > 1} <= hashes.CHANGES.keys()
