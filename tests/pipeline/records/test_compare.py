import numpy as np
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline.build.build import Build
from basilar.pipeline.errors import IncomparableError
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records import compare as compare_module
from basilar.pipeline.records.compare import absolute_differences, compare, first_stage
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def other(built):
    """Build another set in the same root: of a changed representation, or without some clips."""
    from basilar.pipeline.build import luigi_engine

    def make(without=(), **representation):
        recipe = {**SMALL, "representation": {**SMALL["representation"], **representation}}
        manifest = built.plan.manifest
        keep = [clip_id not in without for clip_id in manifest.column("id")]
        manifest = type(manifest)(manifest.root, manifest.table.filter(keep))
        build = Build(
            root=built.root.parent / "other",
            plan=Plan(Recipe.from_dict(recipe), manifest, 600),
            tracking_uri="",
        )
        assert luigi_engine.run(build, workers=1, log=False).succeeded
        return FeatureSet.open(build.store)

    return make


def test_a_set_equals_itself(built):
    fs = FeatureSet.open(built.store)
    found = compare(fs, fs)
    assert found.equal
    assert (found.clips, found.only) == (11, (0, 0))  # contents: two clips are equal
    assert found.mean.tolist() == found.largest.tolist() == [0.0] * 8


def test_a_changed_recipe_is_measured_bin_by_bin(built, other):
    a, b = FeatureSet.open(built.store), other(window="hamming")
    found = compare(a, b)
    assert not found.equal
    contents = dict.fromkeys(a.clips["content"])
    row_in_b = {content: i for i, content in enumerate(b.clips["content"])}
    rows = {content: i for i, content in enumerate(a.clips["content"])}
    pairs = [(a[rows[c]].astype(float), b[row_in_b[c]].astype(float)) for c in contents]
    difference = np.concatenate([np.abs(x - y) for x, y in pairs])
    np.testing.assert_allclose(found.mean, difference.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.largest, difference.max(axis=0))
    assert found.frames == len(difference)
    largest = [np.abs(x - y).max() for x, y in pairs]
    assert (
        a.clips["content"][a.clips["id"] == found.worst].item()
        == list(contents)[int(np.argmax(largest))]
    )
    assert found.span == a.stats["max"].max() - a.stats["min"].min()


def test_blocks_change_nothing(built, other, monkeypatch):
    a, b = FeatureSet.open(built.store), other(window="hamming")
    whole = compare(a, b)
    monkeypatch.setattr(compare_module, "_ROWS", 16)
    cut = compare(a, b)
    np.testing.assert_array_equal(cut.largest, whole.largest)
    np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-12)


def test_clips_of_one_set_alone_are_counted(built, other):
    a, b = FeatureSet.open(built.store), other(without=["c/02.wav", "b/01.wav"])
    assert compare(a, b).only == (2, 0)
    assert compare(b, a).only == (0, 2)
    assert not compare(a, b).equal
    assert not compare(a, b).largest.any()


def test_complex_values_are_compared_by_magnitude():
    x = np.array([[1 + 1j, 0]], np.complex64)
    (found,) = absolute_differences(x, np.array([[1 - 1j, 2]], np.complex64))
    assert found.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"n_mels": 9}, "they have 8 and 9 bins, .*; basilar why"),
        ({"hop_length": 32}, "frames in .* equal frames"),
    ],
)
def test_sets_of_other_shapes_are_refused(built, other, change, problem):
    with pytest.raises(IncomparableError, match=problem):
        compare(FeatureSet.open(built.store), other(**change))


def test_sets_without_a_clip_in_common_are_refused(built, tmp_path):
    from basilar.pipeline.build import luigi_engine

    (tmp_path / "audio").mkdir()
    sf.write(tmp_path / "audio" / "sine.wav", np.sin(np.arange(4000) / 9), 8000)
    plan = Plan(Recipe.from_dict(SMALL), scan(tmp_path / "audio"))
    build = Build(root=tmp_path / "root", plan=plan, tracking_uri="")
    assert luigi_engine.run(build, workers=1, log=False).succeeded
    with pytest.raises(IncomparableError, match="have no clip in common"):
        compare(FeatureSet.open(built.store), FeatureSet.open(build.store))


def test_the_first_stage_that_differs():
    row = {"decoded_crc32": 1, "resampled_crc32": 2, "values_sha256": "3"}
    assert first_stage(row, row) is None
    assert first_stage(row, {**row, "values_sha256": "4"}) == "representation"
    assert first_stage(row, {**row, "resampled_crc32": 4, "values_sha256": "4"}) == "resample"
    assert first_stage(row, {**row, "decoded_crc32": 4, "resampled_crc32": 4}) == "decode"
