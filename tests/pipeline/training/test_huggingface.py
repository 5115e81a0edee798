import pytest

from tests.pipeline.training.test_feature_set import make  # noqa: F401  # a fixture


def test_hugging_face(make, monkeypatch, tmp_path):  # noqa: F811
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    fs = make()
    made = fs.to_hf().with_format("numpy")
    assert made.features["label"].names == ["a", "b", "c"]
    assert len(made) == 12
    for i, row in enumerate(made):
        assert row["id"] == fs.clips["id"][i]
        assert row["label"] == fs.label_codes[i]
        assert row["features"].tobytes() == fs[i].tobytes()
