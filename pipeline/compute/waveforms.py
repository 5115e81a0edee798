"""The clips of a shard as signals, and the artifact that decode and resample make of them.

    samples.f32  float32, little-endian: one clip after the other, each from a multiple of 64 bytes
    index.json   which clips these are, where each begins and how long it is, their CRC-32, what was
                 quarantined, and the CRC-32 of all that

Samples are written once: `write_waveforms` gives the stage the file to write them to, as they come.
"""

import json
import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basilar.pipeline import storage
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.atomic import replacing
from basilar.pipeline.storage.files import read_json
from basilar.pipeline.storage.scratch import SignalSpan, Spool, release_pages

SAMPLES, INDEX = "samples.f32", "index.json"
_RELEASED_AT_ONCE = 64  # signals


@dataclass
class Waveforms:
    """The decoded or resampled clips of one shard, in content order.

    `signals` are float32 (samples,), each at its `sample_rates` Hz, read-only, mapped from a file,
    which has them at `begins` (bytes). `sources` keeps the (sample rate in Hz, samples) that each
    had in its file, `checksums` the CRC-32 of each clip's samples after each stage so far,
    `seconds` the time each stage took.
    """

    contents: list[str] = field(default_factory=list)
    signals: list[NDArray[np.float32]] = field(default_factory=list)
    sample_rates: list[int] = field(default_factory=list)
    sources: list[tuple[int, int]] = field(default_factory=list)
    checksums: list[tuple[int, ...]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    begins: list[int] = field(default_factory=list)

    def lie_at(self, places: list[SignalSpan], spool: Spool) -> None:
        """Take the signals from where a spool has them."""
        self.begins = [place.begin for place in places]
        self.signals = spool.signals(places)


def write_waveforms(folder: Path, make: Callable[[Spool], Waveforms]) -> None:
    """Commit as a folder what `make` returns, whose signals it puts into the spool it is given."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        with Spool.at(temporary / SAMPLES) as spool:
            made = make(spool)
        index: dict[str, Any] = {
            "contents": made.contents,
            "begins": made.begins,
            "n_samples": [y.size for y in made.signals],
            "sample_rates": made.sample_rates,
            "sources": made.sources,
            "checksums": made.checksums,
            "quarantined": made.quarantined,
            "seconds": made.seconds,
            "bytes": (temporary / SAMPLES).stat().st_size,
        }
        index["crc32"] = zlib.crc32(json.dumps(index).encode())
        (temporary / INDEX).write_text(json.dumps(index))


def read_waveforms(folder: Path) -> Waveforms:
    """Read waveforms back, memory-mapped.

    Raises FileNotFoundError, or DamagedArtifactError if anything is not as it was written.
    """
    if not storage.exists(folder):
        raise FileNotFoundError(f"{folder}: it is not there; build again")
    if not folder.is_dir():
        storage.fetch(folder)
    try:
        index = read_json(folder / INDEX)
        expected = index.pop("crc32")
        if zlib.crc32(json.dumps(index).encode()) != expected:
            raise ValueError("the checksum of its index does not match")
        waveforms = Waveforms(
            contents=index["contents"],
            signals=_mapped(folder / SAMPLES, index),
            begins=index["begins"],
            sample_rates=index["sample_rates"],
            sources=[(rate, n_samples) for rate, n_samples in index["sources"]],
            checksums=[tuple(stages) for stages in index["checksums"]],
            quarantined=[Quarantined(*entry) for entry in index["quarantined"]],
            seconds=index["seconds"],
        )
        for i, y in enumerate(waveforms.signals):
            if zlib.crc32(y.data.cast("B")) != waveforms.checksums[i][-1]:
                raise ValueError("a checksum of its samples does not match")
            if i % _RELEASED_AT_ONCE == 0:
                release_pages([y])
        release_pages(waveforms.signals)
        return waveforms
    except (OSError, ValueError, KeyError, TypeError, DamagedArtifactError) as error:
        raise DamagedArtifactError(
            f"{folder}: damaged ({error}); delete it and build again"
        ) from error


def _mapped(file: Path, index: dict[str, Any]) -> list[NDArray[np.float32]]:
    """The signals in `samples.f32`."""
    with file.open("rb") as samples:
        if (size := samples.seek(0, 2)) != index["bytes"]:
            raise ValueError(f"{SAMPLES} has {size} bytes, not {index['bytes']}")
        if not index["contents"]:
            return []
        data = np.frombuffer(mmap.mmap(samples.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        places = zip(index["n_samples"], index["begins"], strict=True)
        return [data[begin : begin + 4 * n].view("<f4") for n, begin in places]
