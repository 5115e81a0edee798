import numpy as np
import pytest

from basilar.pipeline.training.clip_table import ClipTable


@pytest.fixture(scope="module")
def table(built):
    return ClipTable(built.store, 12, None)


def test_all_clips_of_a_store_are_its_table(table):
    frame = table.frame()
    assert len(table) == len(frame) == 12
    np.testing.assert_array_equal(table.rows, np.arange(12))
    assert table.labels == ["a", "b", "c"]
    assert [table.labels[code] for code in table.label_codes] == list(frame["label"])
    for row, clip_id in enumerate(frame["id"]):
        assert table.row_of(clip_id) == row


def test_of_selected_clips_everything_is_theirs(table):
    frame, some = table.frame(), ClipTable(table.path, 12, np.array([7, 2]))
    assert len(some) == 2
    assert list(some.frame()["id"]) == [frame["id"][7], frame["id"][2]]
    assert some.row_of(frame["id"][2]) == 1
    assert some.label_codes.tolist() == table.label_codes[[7, 2]].tolist()
    assert some.of_selected(np.arange(12)).tolist() == [7, 2]
    assert some.matching(None, {"id": frame["id"][2]}).tolist() == [1]
    with pytest.raises(KeyError, match="no clip has the id"):
        some.row_of(frame["id"][0])


def test_clips_match_by_columns_and_by_an_expression(table):
    frame = table.frame()
    assert table.matching(None, {}).tolist() == list(range(12))
    found = table.matching("n_frames > 40", {"label": ["a", "b"]})
    expected = frame[frame["label"].isin(["a", "b"]) & (frame["n_frames"] > 40)]
    assert found.tolist() == expected.index.tolist()
    assert 0 < len(found) < 8
    with pytest.raises(ValueError, match=r"no column 'lable'; did you mean label\?"):
        table.matching(None, {"lable": "a"})
