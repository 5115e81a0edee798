import os

import pytest

from basilar.pipeline.audio.isolation import isolated
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.compute.waveforms import (
    ClipSamples,
    Waveforms,
    read_waveforms,
    write_waveforms,
)
from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage.scratch import SignalSpan

OLD_INDEX = (
    '{"contents": ["0000000000000000000000000000000000000000000000000000000000000000", '
    '"0000000000000000000000000000000000000000000000000000000000000001"], '
    '"begins": [0, 64], '
    '"n_samples": [3, 20], '
    '"sample_rates": [8000, 8001], '
    '"sources": [[8000, 3], [8000, 20]], '
    '"checksums": [[4294967295, 1731565712], [4294967295, 4281714486]], '
    '"quarantined": [["cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", '
    '"decode", '
    '"corrupt", '
    '"a message"]], '
    '"seconds": {"decode": 0.25}, '
    '"bytes": 144, '
    '"crc32": 2427882855}'
)


def some(spool, *signals):
    """Waveforms whose signals were put into a spool."""
    spans = [spool.put([y]) for y in signals]
    return Waveforms(
        clips=[
            ClipSamples(f"{i:064}", span, 8000 + i, 8000, y.size, (2**32 - 1, span.crc32))
            for i, (y, span) in enumerate(zip(signals, spans, strict=True))
        ],
        samples=spool.mapped(),
        quarantined=[Quarantined("c" * 64, "decode", "corrupt", "a message")],
        seconds={"decode": 0.25},
    )


def write(folder, *signals):
    kept = []
    write_waveforms(folder, lambda spool: kept.append(some(spool, *signals)) or kept[0])
    return kept[0]


def test_waveforms_come_back_as_they_were(tmp_path, noise):
    signals = [noise(1000), noise(1, 1), noise(100, 2)[::2]]
    written, again = write(tmp_path / "w", *signals), read_waveforms(tmp_path / "w")
    assert [y.tobytes() for y in again.signals] == [y.tobytes() for y in signals]
    assert not any(y.flags.writeable for y in again.signals)
    assert again.contents == [f"{i:064}" for i in range(3)]
    for name in ("clips", "quarantined", "seconds"):
        assert getattr(again, name) == getattr(written, name)


def test_the_index_is_the_one_of_older_roots(tmp_path, noise):
    """Artifacts that were made before stay cached: the bytes of their index are read and written.

    The text is from before clips were named tuples.
    """
    write(tmp_path / "w", noise(3), noise(20, 1))
    assert (tmp_path / "w" / "index.json").read_text() == OLD_INDEX


def test_no_waveforms_at_all(tmp_path):
    write(tmp_path / "w")
    assert read_waveforms(tmp_path / "w").signals == []


def test_what_a_child_wrote_before_it_died_is_passed_over(tmp_path, noise):
    def make(spool):
        def put(items):
            for n in items:
                place = spool.put([noise(n, n)])
                if n == 13:
                    os.kill(os.getpid(), 9)
                yield place

        found = dict(isolated(put, [100, 13, 50]))
        spans = [SignalSpan(*found[i]) for i in (0, 2)]
        clips = [ClipSamples("a", span, 1, 1, 1, (span.crc32,)) for span in spans]
        return Waveforms(clips, spool.mapped())

    write_waveforms(tmp_path / "w", make)
    signals = read_waveforms(tmp_path / "w").signals
    assert [y.tobytes() for y in signals] == [noise(n, n).tobytes() for n in (100, 50)]


def test_what_is_not_there_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match="w: it is not there"):
        read_waveforms(tmp_path / "w")


@pytest.mark.parametrize("name", ["samples.f32", "index.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "odd", "empty", "grow", "missing"])
def test_damaged_waveforms_are_refused_by_name(tmp_path, noise, name, damage):
    write(tmp_path / "w", noise(1000), noise(1, 1))
    file = tmp_path / "w" / name
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        flipped = data[:30] + bytes([data[30] ^ 64]) + data[31:]
        cases = {"flip": flipped, "cut": data[:-4], "odd": data[:-3], "empty": b""}
        file.write_bytes({**cases, "grow": data + b"    "}[damage])
    if (name, damage) == ("index.json", "grow"):
        return  # spaces after JSON are nothing
    with pytest.raises(DamagedArtifactError, match=r"w: damaged \(.*\); delete it and build again"):
        read_waveforms(tmp_path / "w")
