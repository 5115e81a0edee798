import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar import FeatureSet
from basilar.pipeline.report import describe

names = st.lists(st.sampled_from(["a", "b", "", "é", None]), min_size=1, max_size=40)


def table(**columns):
    """A table as `columns` reads one: with columns of few values as codes, in two chunks."""

    def coded(values):
        return pa.array(values, pa.string()).dictionary_encode()

    chunks = [
        pa.table({name: coded(values[part]) for name, values in columns.items()})
        for part in (slice(0, 3), slice(3, None))
    ]
    return pa.concat_tables(chunks)


@given(names)
def test_codes_name_the_values_they_stand_for(values):
    found, codes = describe.coded(table(label=values)["label"])
    assert [found[code] for code in codes] == values
    known = sorted(set(values) - {None})
    assert found == known + [None] * (None in values)


@given(names, st.randoms())
def test_counts_of_a_column_add_up(values, random):
    splits = [random.choice(["train", "test"]) for _ in values]
    clips = table(label=values, split=splits)
    for name, numbers in (("duration", np.full(len(values), 1800.0)), ("n_frames", values)):
        whole = np.arange(len(values)) if name == "n_frames" else numbers
        clips = clips.append_column(name, pa.array(whole))
    found = describe.counted(clips, "label", across="split")
    assert found.total == len(found.rows) == len(set(values))
    assert sum(row[1] for row in found.rows) == len(values)
    assert sum(row[3] for row in found.rows) == sum(range(len(values)))
    for row in found.rows:
        assert row[2] == row[1] / 2
        assert sum(row[4:]) == row[1]


def test_more_values_than_a_table_has_rows_are_counted_all():
    values = [f"{i}" for i in range(60)] + ["7"] * 3
    clips = table(label=values)
    for name in ("duration", "n_frames"):
        clips = clips.append_column(name, pa.array(np.ones(63)))
    found = describe.counted(clips, "label")
    assert (len(found.rows), found.total, found.rows[0][:2]) == (describe.MOST_ROWS, 60, ("7", 4))


@pytest.mark.parametrize(
    ("groups", "splits", "expected"),
    [
        ([None, None], ["train", "test"], None),
        (["x", "y", "x"], ["train", "test", "train"], (2, 0)),
        (["x", "y", "x", None], ["train", "test", "test", "test"], (2, 1)),
    ],
)
def test_groups_that_cross_splits_are_counted(groups, splits, expected):
    assert describe.groups(table(group=groups, split=splits)) == expected


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=50))
def test_no_clip_is_outside_of_the_histograms(numbers):
    x = np.array(numbers)
    for cells in (describe.duration_cells(x), describe.level_cells(-x)):
        assert cells.counts.sum() == x.size
        assert (np.diff(cells.edges) > 0).all()
    assert describe.level_cells(np.array([-np.inf, -20.0])).counts.sum() == 2


def test_percentiles_lie_within_the_range_and_distances_are_of_means(built):
    fs = FeatureSet.open(built.store)
    kind = fs.typed_recipe.representation
    before, after = describe.profiles(fs, kind)
    assert (np.diff(before.percentiles, axis=0) >= 0).all()
    assert (before.percentiles[0] >= before.min).all()
    assert (before.percentiles[-1] <= before.max).all()
    assert after.mean == pytest.approx(np.zeros(8), abs=1e-6)
    far = describe.distances(fs, kind)
    means = np.stack([x.mean(axis=0) for x in fs])
    z = (means - before.mean) / before.std
    assert far.score == pytest.approx(np.sqrt((z**2).mean(axis=1)), rel=1e-4)
    assert far.bin.tolist() == np.abs(z).argmax(axis=1).tolist()
    assert not far.constant.any()
