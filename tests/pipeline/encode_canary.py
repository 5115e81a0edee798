"""How the encoded files in canaries.json were made: `python -m tests.pipeline.encode_canary`.

Not run again: other encoders would give other bytes, and what is guarded are the decoders.
"""

import base64
import io
import json

import av
import numpy as np
import soundfile as sf

from basilar.pipeline.compute.canary import FILE, signal

SAMPLE_RATE = 16000


def with_libsndfile(y, container, subtype):
    out = io.BytesIO()
    sf.write(out, y, SAMPLE_RATE, format=container, subtype=subtype)
    return out.getvalue()


def with_ffmpeg(y, container, codec):
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=SAMPLE_RATE, layout="mono", bit_rate=24000)
        frame = av.AudioFrame.from_ndarray(y[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", SAMPLE_RATE, stream.codec_context.frame_size
        )
        for part in (frame, None):
            for piece in resampler.resample(part):
                file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return out.getvalue()


def encoded():
    y = signal(4000)
    stereo = np.stack([y[:600], y[600:1200]], axis=1)
    return {
        "wav": with_libsndfile(stereo, "WAV", "PCM_16"),
        "flac": with_libsndfile(y[:700], "FLAC", "PCM_16"),
        "mp3": with_libsndfile(y[:3000], "MP3", "MPEG_LAYER_III"),
        "ogg": with_libsndfile(y[:2000], "OGG", "VORBIS"),
        "m4a": with_ffmpeg(y, "ipod", "aac"),
        "opus": with_ffmpeg(y[:3840], "ogg", "libopus"),
    }


if __name__ == "__main__":
    content = json.loads(FILE.read_text())
    content["audio"] = {name: base64.b64encode(data).decode() for name, data in encoded().items()}
    FILE.write_text(json.dumps(content, indent=1) + "\n")
    print("now run: python -m basilar.pipeline.compute.canary --write")
