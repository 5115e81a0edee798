import json
import zlib

import numpy as np
import pytest

from basilar.pipeline.compute.clip import (
    Blocks,
    DecodedClip,
    as_json,
    decode_clip,
    from_json,
    resample_clip,
)
from basilar.pipeline.compute.quarantine import Quarantined
from basilar.pipeline.compute.transform import Transform
from basilar.pipeline.compute.waveforms import ClipSamples
from basilar.pipeline.errors import ChangedAudioError
from basilar.pipeline.manifests.file_cache import FileCache
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.plan import Plan
from basilar.pipeline.storage.scratch import SignalSpan, Spool


def transform_of(**resample):
    return Transform.from_recipe({"resample": resample, "representation": {"kind": "waveform"}})


def test_blocks_are_counted_on_the_way(noise):
    y = noise(1000)
    blocks = Blocks((part, 8000) for part in (y[:600], y[600:]))
    assert blocks.sample_rate == 8000
    np.testing.assert_array_equal(np.concatenate(list(blocks)), y)
    assert (blocks.samples, blocks.crc32) == (1000, zlib.crc32(y.tobytes()))
    assert blocks.seconds > 0


def test_no_blocks_are_no_samples():
    blocks = Blocks(iter(()))
    assert (list(blocks), blocks.samples, blocks.sample_rate, blocks.crc32) == ([], 0, 0, 0)


@pytest.mark.parametrize(
    "made",
    [
        DecodedClip(ClipSamples("x", SignalSpan(0, 64, 7), 8000, 44100, 99, (1, 7)), 0.25),
        Quarantined("x", "decode", "corrupt", "half of it is missing"),
    ],
)
def test_the_parent_is_told_what_the_child_made(made):
    assert from_json(json.loads(json.dumps(as_json(made)))) == made


@pytest.mark.parametrize("resampled", [False, True])
def test_a_clip_is_decoded_into_the_spool(audio_folder, resampled):
    transform = transform_of(sample_rate=4000)
    (shard,) = Plan(transform.recipe, scan(audio_folder)).shards
    source = shard.sources[0]
    file = audio_folder / source.path
    with Spool(None) as spool, FileCache() as cache:
        made = decode_clip(source, transform, file, cache, spool, resampled)
        spool.settle(made.clip.span)
        signal = made.clip.span.of(spool.mapped())
    y, rate = transform.decode(file)
    expected = transform.resample(y, source_rate=rate) if resampled else y
    np.testing.assert_array_equal(signal, expected)
    assert (made.clip.content, made.clip.source_rate) == (source.content, 8000)
    assert made.clip.source_samples == y.size
    assert made.clip.sample_rate == (4000 if resampled else 8000)
    assert made.clip.checksums == tuple(
        zlib.crc32(x.tobytes()) for x in ([y, expected] if resampled else [y])
    )


def test_a_file_that_is_not_what_was_scanned_is_an_error(audio_folder):
    source = Source("x", "a/00.wav", "0" * 64)
    file = audio_folder / source.path
    with (
        Spool(None) as spool,
        FileCache() as cache,
        pytest.raises(ChangedAudioError, match=r"00\.wav: it has changed since it was scanned"),
    ):
        decode_clip(source, transform_of(), file, cache, spool, False)


@pytest.mark.parametrize(
    ("samples", "source_rate", "resample", "reason", "message"),
    [
        (
            1,
            192_000,
            {"sample_rate": 8000, "method": "soxr"},
            "empty",
            "1 samples at 192000 Hz leave none at 8000",
        ),
        (9, 767_951, {"sample_rate": 8001}, "unsupported", "767951"),
    ],
)
def test_what_resampling_cannot_use_is_quarantined(
    noise, samples, source_rate, resample, reason, message
):
    blocks = Blocks([(noise(samples), source_rate)])
    with Spool(None) as spool:
        lost = resample_clip("x", blocks, transform_of(**resample), spool)
    assert (lost.content, lost.stage, lost.reason) == ("x", "resample", reason)
    assert message in lost.message
