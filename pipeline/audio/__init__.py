"""The only reader of audio files: `audio.decode`, `audio.probe` and the types they return.

Files are recognised by content, then decoded by libsndfile or FFmpeg, or refused with a reason.
"""

from basilar.pipeline.audio.containers import AudioError, Decoder, Reason
from basilar.pipeline.audio.decoding import (
    DEFAULT_LIMITS,
    VERSIONS,
    AudioInfo,
    Limits,
    blocks,
    decode,
    decode_blocks,
    identity,
    mix,
    path_of,
    probe,
    sniff,
    usable,
)

__all__ = [
    "DEFAULT_LIMITS",
    "VERSIONS",
    "AudioError",
    "AudioInfo",
    "Decoder",
    "Limits",
    "Reason",
    "blocks",
    "decode",
    "decode_blocks",
    "identity",
    "mix",
    "path_of",
    "probe",
    "sniff",
    "usable",
]
