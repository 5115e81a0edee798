"""The tables of a shard's artifact."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.manifests.table import take_rows
from basilar.pipeline.plan import Plan
from basilar.pipeline.storage.checksums import check_files
from basilar.pipeline.storage.files import read_table
from basilar.pipeline.store.layout import open_zarr

MOMENTS = (
    "sum",
    "sum_squares",
    "min",
    "max",
)  # the rows of `dsp.moments.moments`, in order


@dataclass(frozen=True)
class ShardTables:
    """What a shard's artifact says of its clips, read when it is asked for and not kept."""

    folder: Path
    key: str
    seconds: dict[str, float]
    canary: list[str]  # warnings of the guard where it was computed

    @property
    def clips(self) -> pa.Table:
        """One row a clip, in content order."""
        return read_table(self.folder / "clips.parquet")

    @property
    def quarantined(self) -> list[Quarantined]:
        """The contents that could not be used."""
        rows = read_table(self.folder / "quarantine.parquet").to_pylist()
        return [Quarantined(**{name: row[name] for name in Quarantined._fields}) for row in rows]

    @property
    def moments(self) -> list[NDArray[np.float64]]:
        """The moments of each clip, (clips, bins) each."""
        return [self.moment(name) for name in MOMENTS]

    def moment(self, name: str) -> NDArray[np.float64]:
        """One of the moments of each clip, (clips, bins)."""
        return np.asarray(open_zarr(self.folder / "moments" / name))


def read_shard(folder: Path) -> ShardTables:
    """The tables of a shard's artifact.

    Raises DamagedArtifactError if it is not there, or anything of it, but for its features, is not
    what was written.
    """
    try:
        storage.fetch(folder, but=storage.FEATURES)
    except FileNotFoundError as error:
        raise DamagedArtifactError(
            f"{storage.name(folder)}: not all of it is there ({error}); build again"
        ) from None
    check_files(folder, but=storage.FEATURES)
    attributes: Any = zarr.open_group(folder, mode="r", zarr_format=3).attrs["basilar"]
    return ShardTables(
        folder, attributes["key"], attributes["seconds"], attributes.get("canary", [])
    )


def quarantined(plan: Plan, shards: Sequence[ShardTables]) -> Iterator[tuple[str, Quarantined]]:
    """The clips of a plan that could not be used, by id, in content order."""
    for planned, shard in zip(plan.shards, shards, strict=True):
        if lost := {entry.content: entry for entry in shard.quarantined}:
            ids = take_rows(plan.manifest.table, ["id"], planned.rows)["id"].to_pylist()
            for clip_id, content in zip(ids, plan.manifest.contents_of(planned.rows), strict=True):
                if content in lost:
                    yield clip_id, lost[content]
