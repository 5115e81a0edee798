"""Waveforms that tests make of arrays, as stages make them of files."""

from basilar.pipeline.compute.waveforms import ClipSamples, Waveforms
from basilar.pipeline.storage.scratch import Spool


def waveforms(*signals, sample_rate=8000):
    """Float32 signals that have been decoded and resampled to the rate they had."""
    with Spool(None) as spool:
        spans = [spool.put([y]) for y in signals]
        mapped = spool.mapped()
    rates = (sample_rate, sample_rate)
    clips = [
        ClipSamples(f"{i:064x}", span, *rates, span.samples, (span.crc32, span.crc32))
        for i, span in enumerate(spans)
    ]
    return Waveforms(clips, mapped)
