"""Compiled peers of 2026, called as their documentation shows, on one thread. `make bench-dsp`.

Each function returns what those that are installed compute, as functions without arguments, whose
results are (frames, bins).
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Before their libraries start threads of their own.
os.environ["RAYON_NUM_THREADS"] = "1"

PEERS = ("asrfront", "specux", "auvux-dsp", "sonara", "spectrograms")
Contenders = dict[str, Callable[[], Any]]
Samples = NDArray[np.float32]


def _there(module: str) -> Any:
    try:
        found = import_module(module)
    except (ImportError, OSError):
        return None
    if hasattr(found, "set_num_threads"):
        found.set_num_threads(1)
    return found


def log_mel(y: Samples, sample_rate: int, n_fft: int, hop_length: int, n_mels: int) -> Contenders:
    """Log-mels in dB; those of sonara and specux without `top_db` where they have none."""
    made: Contenders = {}
    settings: dict[str, Any] = {"sr": sample_rate, "n_fft": n_fft, "hop_length": hop_length}
    settings["n_mels"] = n_mels
    if specux := _there("specux"):
        made["specux"] = lambda: specux.melspectrogram(y, **settings, output="db", backend="cpu").T
    if auvux := _there("auvux.dsp"):
        made["auvux-dsp"] = lambda: auvux.mel_spectrogram(y, **settings, output="db", top_db=80.0).T
    if sonara := _there("sonara"):
        made["sonara"] = lambda: sonara.power_to_db(sonara.melspectrogram(y=y, **settings)).T
    if spectrograms := _there("spectrograms"):
        made |= _spectrograms(spectrograms, y, sample_rate, n_fft, hop_length, n_mels)
    return made


def _spectrograms(
    library: Any, y: Samples, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> Contenders:
    stft = library.StftParams(n_fft=n_fft, hop_size=hop_length, window=library.WindowType.hanning)
    params = library.SpectrogramParams(stft, sample_rate=float(sample_rate))
    mel = library.MelParams(n_mels=n_mels, f_min=0.0, f_max=sample_rate / 2)
    db = library.LogParams(floor_db=-80.0)
    return {"spectrograms": lambda: library.compute_mel_db_spectrogram(y, params, mel, db)}


def log_mels(
    clips: list[Samples], sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> Contenders:
    """Log-mels of many clips of one length, in one call where a library has it, and a call each."""
    made: Contenders = {}
    settings: dict[str, Any] = {"sr": sample_rate, "n_fft": n_fft, "hop_length": hop_length}
    settings["n_mels"] = n_mels
    batch = np.stack(clips)
    if specux := _there("specux"):
        options = {**settings, "output": "db", "backend": "cpu"}
        made["specux, batched"] = lambda: specux.melspectrogram(batch, **options)
        made["specux, one call a clip"] = lambda: [
            specux.melspectrogram(y, **options) for y in clips
        ]
    if auvux := _there("auvux.dsp"):
        said = {**settings, "output": "db"}
        made["auvux-dsp, batched"] = lambda: auvux.mel_spectrogram(batch, **said)
        made["auvux-dsp, one call a clip"] = lambda: [
            auvux.mel_spectrogram(y, **said) for y in clips
        ]
    return made


def whisper(y: Samples) -> Contenders:
    """Whisper's log-mels, 80 bands; those of specux are log-mels of the same size."""
    made: Contenders = {}
    if _there("asrfront"):
        front = import_module("asrfront.whisper")
        made["asrfront"] = lambda: front.log_mel(y, n_mels=80, pad_or_trim=False).T
    if specux := _there("specux"):
        settings = {"sr": 16000, "n_fft": 400, "hop_length": 160, "n_mels": 80}
        made["specux (log-mel)"] = lambda: (
            specux.melspectrogram(y, **settings, output="db", backend="cpu").T
        )
    return made


def kaldi(y: Samples) -> Contenders:
    """Kaldi's filter bank, 80 bands; asrfront's has a Hamming window."""
    if not _there("asrfront"):
        return {}
    front = import_module("asrfront.sensevoice")
    return {"asrfront (Hamming)": lambda: front.fbank_raw(y, n_mels=80)}


def constant_q(
    y: Samples, sample_rate: int, hop_length: int, n_bins: int, bins_per_octave: int, fmin: float
) -> Contenders:
    """Magnitudes of the CQT."""
    made: Contenders = {}
    settings: dict[str, Any] = {"sr": sample_rate, "hop_length": hop_length, "n_bins": n_bins}
    settings |= {"bins_per_octave": bins_per_octave, "fmin": fmin}
    if auvux := _there("auvux.dsp"):
        made["auvux-dsp"] = lambda: auvux.cqt(y, **settings).T
    if specux := _there("specux"):
        made["specux"] = lambda: specux.cqt(y, **settings, backend="cpu").T
    if sonara := _there("sonara"):
        made["sonara"] = lambda: np.abs(sonara.cqt(y, **settings)).T
    return made
