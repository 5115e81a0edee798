"""A feature set as a `datasets.Dataset` of Hugging Face."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from basilar.pipeline.training.feature_set import FeatureSet


def to_dataset(fs: "FeatureSet") -> "Dataset":
    """Id, label and features of each clip, copied. Raises ValueError for complex features."""
    from datasets import Array2D, ClassLabel, Dataset, Features, Value

    if fs.dtype.kind == "c":
        raise ValueError(f"{fs.path}: datasets has no complex values; use a magnitude recipe")
    columns = {
        "id": Value("string"),
        "label": ClassLabel(names=fs.labels) if fs.labels else Value("string"),
        "features": Array2D(shape=(None, fs.n_bins), dtype=str(fs.dtype)),
    }
    made: Dataset = Dataset.from_generator(_rows, features=Features(columns), gen_kwargs={"fs": fs})
    return made


def _rows(fs: "FeatureSet") -> Iterator[dict[str, Any]]:
    table = fs.clips[["id", "label"]]
    for i, (clip_id, label) in enumerate(table.itertuples(index=False)):
        yield {"id": clip_id, "label": label, "features": fs.read(i)}
