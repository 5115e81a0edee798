"""The artifact of a shard: a small feature set without statistics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from basilar.pipeline.compute.stages import Represented
from basilar.pipeline.plan import Shard
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage.atomic import replacing
from basilar.pipeline.storage.checksums import write_checksums
from basilar.pipeline.store.arrays import write_array, write_moments
from basilar.pipeline.store.schema import CLIP_COLUMNS, provenance, write_quarantine
from basilar.pipeline.store.shard_tables import MOMENTS
from basilar.pipeline.store.writer import FeatureWriter


def write_shard(
    folder: Path,
    make: Callable[[Callable[[NDArray[Any]], None]], Represented],
    *,
    recipe: Recipe,
    shard: Shard,
    canary: Sequence[str] = (),
) -> int:
    """Commit a small feature set: `make` puts the features clip by clip and returns their tables.

    `canary` are the guard's warnings about the process that computes it. Returns how many clips
    were quarantined.
    """
    n_bins = recipe.representation.columns()
    with replacing(folder) as temporary:
        with FeatureWriter(temporary / "features", recipe) as features:
            represented = make(features.put)
        made = represented.clips
        clips: dict[str, list[Any]] = {
            "content": [clip.content for clip in made],
            "start": features.starts,
            "n_frames": features.n_frames,
            "values_sha256": [clip.values_sha256 for clip in made],
            "sample_rate": [clip.source_rate for clip in made],
            "n_samples": [clip.source_samples for clip in made],
            "decoded_crc32": [clip.decoded_crc32 for clip in made],
            "resampled_crc32": [clip.resampled_crc32 for clip in made],
        }
        schema = pa.schema([(name, CLIP_COLUMNS[name]) for name in clips])
        pq.write_table(
            pa.table(clips, schema), temporary / "clips.parquet", write_page_checksum=True
        )
        write_quarantine(temporary, represented.quarantined)
        for name in ("start", "n_frames"):
            write_array(temporary / name, np.asarray(clips[name], np.int64), ("clip",))
        by_name = dict(zip(MOMENTS, represented.moments.transpose(1, 0, 2), strict=True))
        write_moments(temporary, lambda name: [by_name[name]], len(made), n_bins)
        attributes = {
            "kind": "shard",
            "key": shard.keys["representation"],
            "seconds": represented.seconds,
            "canary": list(canary),
            **provenance(recipe),
        }
        zarr.create_group(temporary, attributes={"basilar": attributes})
        write_checksums(temporary)
    return len(represented.quarantined)
