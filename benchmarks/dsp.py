"""Representations against peers: one core, one thread, interleaved, medians. `make bench-dsp`.

Every contender is called once to warm up, then all are called in turn, round after round, so that a
machine that slows down slows all of them. Time is the CPU time of the process, which has one
thread: other work of the machine counts little. The ratio is that of the medians. Errors are the
largest difference from a float64 reference, relative to its range, of all contenders that compute
the same thing. All are called as their documentation shows, and give an array for an array of
samples: kaldi-native-fbank takes its samples as a list and gives a frame at a time, which is part
of its time. Peers that are not installed are named.
"""

import os

for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)

import argparse
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import librosa
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from basilar import Transform
from basilar.dsp import representations
from basilar.dsp.compress import Log
from basilar.dsp.cqt import Cqt, cqt, magnitude
from basilar.dsp.framing import Framing
from basilar.dsp.mel import MelBank
from benchmarks import peers
from tests.dsp.test_cqt import direct_sum

C1 = 32.70319566257483  # Hz
PEERS = ("librosa", "kaldi-native-fbank", "transformers", "torch", "torchaudio", "essentia")
PEERS += peers.PEERS
Contenders = dict[str, Callable[[], Any]]
Exact = NDArray[np.float64]


def race(contenders: Contenders, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each contender."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(rounds + 1):
        for name, contender in contenders.items():
            started = time.process_time()
            contender()
            if run:
                times[name].append(time.process_time() - started)
    return {name: median(seconds) for name, seconds in times.items()}


def music(seconds: float, sample_rate: int) -> NDArray[np.float32]:
    """Something like music: a few partials that come and go, and noise."""
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    rng = np.random.default_rng(0)
    y = 0.01 * rng.standard_normal(t.size)
    for f0 in (110.0, 277.2, 523.3, 1318.5):
        y += 0.2 * np.sin(2 * np.pi * f0 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * t / f0 * 40))
    return y.astype(np.float32)


def exact_spectrum(y: NDArray[np.float32], framing: Framing) -> NDArray[np.complex128]:
    """The STFT in float64, from the same float32 window."""
    frames_tn = framing.frames(y).astype(np.float64)
    if framing.remove_dc:
        frames_tn -= frames_tn.mean(axis=1, keepdims=True)
    before = np.concatenate([frames_tn[:, :1], frames_tn[:, :-1]], axis=1)
    frames_tn -= framing.preemphasis * before
    return scipy.fft.rfft(frames_tn * framing.table[: framing.length], n=framing.n_fft, axis=1)


def exact_mel(y: NDArray[np.float32], framing: Framing, bank: MelBank, sample_rate: int) -> Exact:
    """Mel bands of the power in float64, from the same float32 filters."""
    filters = bank.filters(sample_rate=sample_rate, n_fft=framing.n_fft).toarray()
    return np.abs(exact_spectrum(y, framing)) ** 2 @ filters.T.astype(np.float64)


def decibels(power: Exact, top_db: float | None) -> Exact:
    db = 10 * np.log10(np.maximum(power, 1e-10))
    return db if top_db is None else np.maximum(db, db.max() - top_db)


def error(values: NDArray[Any], exact: NDArray[Any]) -> float:
    return float(np.abs(values - exact).max() / np.ptp(np.abs(exact)))


def scaled_error(values: NDArray[Any], exact: Exact) -> float:
    """`error` of magnitudes of whose bins each may have a scale of its own."""
    scale = (values * exact).sum(axis=0) / (values.astype(np.float64) ** 2).sum(axis=0)
    return error(values * scale, exact)


def log_mel(rounds: int, n_fft: int, hop_length: int, n_mels: int) -> None:
    y = music(300, 22050)
    framing, bank, log = Framing(n_fft, hop_length), MelBank(n_mels), Log(top_db=80.0)

    def ours() -> NDArray[np.float32]:
        (x,) = representations.log_mel(
            [y], sample_rate=22050, framing=framing, bank=bank, power=2, log=log
        )
        return x

    def theirs() -> NDArray[np.float32]:
        mel = librosa.feature.melspectrogram(y=y, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels)
        return librosa.power_to_db(mel).T

    contenders: Contenders = {"ours": ours, "librosa": theirs}
    torchaudio = torchaudio_log_mel(y, 22050, n_fft, hop_length, n_mels)
    if torchaudio:
        contenders["torchaudio"] = torchaudio
    contenders |= peers.log_mel(y, 22050, n_fft, hop_length, n_mels)
    exact = decibels(exact_mel(y, framing, bank, 22050), 80)
    errors = {name: error(contender(), exact) for name, contender in contenders.items()}
    for name, contender in (
        ("kaldi-native-fbank", kaldi_fbank(y, 22050, n_fft, hop_length, n_mels)),
        ("essentia", essentia_log_mel(y, 22050, n_fft, hop_length, n_mels)),
    ):
        if contender:
            contenders[name] = contender
    title = f"log-mel, 300 s, n_fft {n_fft}, hop {hop_length}, {n_mels} mels"
    report(title, race(contenders, rounds), errors)


def torchaudio_log_mel(
    y: NDArray[np.float32], sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> Callable[[], NDArray[np.float32]] | None:
    try:
        import torch
        from torchaudio.transforms import AmplitudeToDB, MelSpectrogram
    except (ImportError, OSError):  # a build for another torch cannot load its library
        return None
    torch.set_num_threads(1)
    mel = MelSpectrogram(
        sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=n_mels,
        pad_mode="constant",
        norm="slaney",
        mel_scale="slaney",
    )
    to_db, samples = AmplitudeToDB("power", top_db=80.0), torch.from_numpy(y)

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(to_db(mel(samples)).T)

    return run


def essentia_log_mel(
    y: NDArray[np.float32], sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> Callable[[], Any] | None:
    """Its standard mode, a frame at a time; its Hann window is symmetric."""
    try:
        from essentia import standard
    except ImportError:
        return None
    window = standard.Windowing(type="hann", size=n_fft, normalized=False, zeroPhase=False)
    spectrum = standard.PowerSpectrum(size=n_fft)
    mel = standard.MelBands(
        inputSize=n_fft // 2 + 1,
        numberBands=n_mels,
        sampleRate=sample_rate,
        highFrequencyBound=sample_rate / 2,
        warpingFormula="slaneyMel",
        normalize="unit_tri",
        type="magnitude",  # of what it is given, which is the power
    )
    to_db = standard.UnaryOperator(type="lin2db")

    def run() -> Any:
        frames = standard.FrameGenerator(y, frameSize=n_fft, hopSize=hop_length)
        return [to_db(mel(spectrum(window(frame)))) for frame in frames]

    return run


def kaldi_fbank(
    y: NDArray[np.float32], sample_rate: int, win_length: int, hop_length: int, n_mels: int
) -> Callable[[], Any] | None:
    try:
        import kaldi_native_fbank as knf
    except ImportError:
        return None
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = sample_rate
    options.frame_opts.frame_length_ms = 1000 * win_length / sample_rate
    options.frame_opts.frame_shift_ms = 1000 * hop_length / sample_rate
    options.mel_opts.num_bins = n_mels
    try:
        knf.OnlineFbank(options)
    except ValueError:  # it refuses filters without a bin
        return None
    samples = y * np.float32(32768)

    def run() -> NDArray[np.float32]:
        computer = knf.OnlineFbank(options)
        computer.accept_waveform(sample_rate, samples.tolist())
        computer.input_finished()
        return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])

    return run


def presets(rounds: int) -> None:
    y = music(300, 16000)
    whisper = Transform.from_recipe("params/whisper_80.toml")

    def by_librosa() -> NDArray[np.float32]:
        mel = librosa.feature.melspectrogram(
            y=y, sr=16000, n_fft=400, hop_length=160, n_mels=80, pad_mode="reflect"
        )[:, :-1]
        log = np.log10(np.maximum(mel, 1e-10))
        return ((np.maximum(log, log.max() - 8) + 4) / 4).T

    contenders: Contenders = {
        "ours": lambda: whisper.apply(y, sample_rate=16000),
        "librosa": by_librosa,
    }
    try:
        from transformers import WhisperFeatureExtractor

        extractor = WhisperFeatureExtractor(feature_size=80)
        contenders["transformers"] = lambda: (
            extractor._np_extract_fbank_features(y[None], "cpu")[0].T
        )
    except ImportError:
        pass
    mel = exact_mel(y, Framing(400, 160, pad_mode="reflect"), MelBank(80), 16000)[:-1]
    exact = np.log10(np.maximum(mel, 1e-10))
    exact = (np.maximum(exact, exact.max() - 8) + 4) / 4
    errors = {name: error(contender(), exact) for name, contender in contenders.items()}
    of_others = peers.whisper(y)
    if "asrfront" in of_others:
        errors["asrfront"] = error(of_others["asrfront"]()[: len(exact)], exact)
    report("Whisper, 80 bands, 300 s", race(contenders | of_others, rounds), errors)
    fbank = Transform.from_recipe("params/kaldi_fbank.toml")
    contenders = {"ours": lambda: fbank.apply(y, sample_rate=16000)}
    for name, contender in (
        ("kaldi-native-fbank", kaldi_fbank(y, 16000, 400, 160, 80)),
        ("torchaudio", torchaudio_fbank(y)),
    ):
        if contender:
            contenders[name] = contender
    kind = fbank.recipe.representation
    exact = np.log(np.maximum(exact_mel(y, kind.framing, kind.bank, 16000), kind.floor))
    errors = {name: error(contender(), exact) for name, contender in contenders.items()}
    report("Kaldi fbank, 80 bands, 300 s", race(contenders | peers.kaldi(y), rounds), errors)


def torchaudio_fbank(y: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]] | None:
    try:
        import torch
        from torchaudio.compliance import kaldi
    except (ImportError, OSError):
        return None
    torch.set_num_threads(1)
    samples = torch.from_numpy(y * np.float32(32768))[None]

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(kaldi.fbank(samples, num_mel_bins=80, dither=0.0))

    return run


def short_clips(rounds: int) -> None:
    # At the settings of the long signals above, and at those of telephone speech.
    for n_fft, hop_length, n_mels in ((2048, 512, 128), (512, 128, 128), (256, 64, 40)):
        _short_clips(rounds, n_fft, hop_length, n_mels)


def _short_clips(rounds: int, n_fft: int, hop_length: int, n_mels: int) -> None:
    clips = [music(0.5, 8000) * np.float32(0.5 + i / 4000) for i in range(2000)]
    framing, bank, log = Framing(n_fft, hop_length), MelBank(n_mels), Log()
    arguments = {"sample_rate": 8000, "framing": framing, "bank": bank, "power": 2, "log": log}
    settings = {"sr": 8000, "n_fft": n_fft, "hop_length": hop_length, "n_mels": n_mels}

    def by_librosa() -> list[NDArray[np.float32]]:
        mels = (librosa.feature.melspectrogram(y=y, **settings) for y in clips)
        return [librosa.power_to_db(mel, top_db=None).T for mel in mels]

    contenders: Contenders = {
        "ours, one call a clip": lambda: [
            representations.log_mel([y], **arguments)[0] for y in clips
        ],
        "ours, batched": lambda: representations.log_mel(clips, **arguments),
        "librosa": by_librosa,
    }
    exact = np.stack([decibels(exact_mel(y, framing, bank, 8000), None) for y in clips])
    errors = {name: error(contender(), exact) for name, contender in contenders.items()}
    contenders |= peers.log_mels(clips, 8000, n_fft, hop_length, n_mels)
    title = f"2,000 clips of 0.5 s at 8 kHz, log-mel {n_fft}/{hop_length}, {n_mels} mels"
    report(title, race(contenders, rounds), errors)


def spectra(rounds: int) -> None:
    y = music(300, 22050)
    framing = Framing(2048, 512)
    contenders: Contenders = {
        "ours": lambda: representations.stft([y], framing=framing),
        "librosa": lambda: librosa.stft(y),
    }
    exact = exact_spectrum(y, framing)
    errors = {"ours": error(contenders["ours"]()[0], exact)}
    errors["librosa"] = error(contenders["librosa"]().T, exact)
    report("complex STFT, 300 s, n_fft 2048, hop 512", race(contenders, rounds), errors)
    log = Log(top_db=80.0)
    contenders = {
        "ours": lambda: representations.log_spectrum([y], framing=framing, power=2, log=log)[0],
        "librosa": lambda: librosa.amplitude_to_db(np.abs(librosa.stft(y))).T,
    }
    in_db = decibels(np.abs(exact) ** 2, 80)
    errors = {name: error(contender(), in_db) for name, contender in contenders.items()}
    report("decibel, 300 s, n_fft 2048, hop 512", race(contenders, rounds), errors)


def constant_q(rounds: int) -> None:
    y = music(300, 22050)
    for n_bins, bins_per_octave, hop_length in ((168, 24, 128), (84, 12, 512)):
        bins = Cqt(hop_length, C1, n_bins, bins_per_octave)

        def ours(bins: Cqt = bins) -> Any:
            return cqt([y], bins, sample_rate=22050)[0]

        def theirs(bins: Cqt = bins) -> Any:
            return librosa.cqt(
                y,
                sr=22050,
                hop_length=bins.hop_length,
                fmin=bins.fmin,
                n_bins=bins.n_bins,
                bins_per_octave=bins.bins_per_octave,
                tuning=0.0,
            ).T

        frames = np.linspace(0, len(y) // hop_length, 20).astype(int)
        exact = direct_sum(y, bins, frames, 22050)
        errors = {"ours": error(ours()[frames], exact), "librosa": error(theirs()[frames], exact)}
        of_others = peers.constant_q(y, 22050, hop_length, n_bins, bins_per_octave, C1)
        for name, contender in of_others.items():
            errors[name] = scaled_error(contender()[frames], np.abs(exact))
        errors["ours (magnitude)"] = scaled_error(np.abs(ours()[frames]), np.abs(exact))

        def magnitudes(bins: Cqt = bins) -> Any:
            return magnitude([y], bins, sample_rate=22050)[0]

        title = f"CQT, 300 s, {n_bins} bins, hop {hop_length}"
        contenders: Contenders = {"ours": ours, "ours (magnitude)": magnitudes, "librosa": theirs}
        report(title, race(contenders | of_others, rounds), errors)


def flops_per_second() -> float:
    """Additions and multiplications a second at the machine's peak, by `peak.c`; 0 without cc."""
    with tempfile.TemporaryDirectory() as folder:
        binary, source = Path(folder) / "peak", Path(__file__).with_name("peak.c")
        command = ["cc", "-O2", "-march=native", "-ffp-contract=off", source, "-o", binary]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError):
            return 0.0
        return float(subprocess.check_output([binary]))


def arithmetic(rounds: int) -> None:
    """The kernel against its own additions and multiplications at the machine's peak."""
    y = music(300, 22050)
    framing, bank = Framing(2048, 512), MelBank(128)
    filters = bank.filters(sample_rate=22050, n_fft=2048)
    n_weights = sum(map(len, filters.weights))
    frames = framing.n_frames(y.size)
    # Windows and 64 real transforms of 32 points, turned; 17 complex ones of 64 points (two stages
    # of 8 of 8 points); power; filters; logarithms.
    transforms = 64 * (32 + 214) + 63 * 92 + 17 * (16 * 56 + 49 * 6)
    operations = transforms + 3 * 1025 + 2 * n_weights + 16 * 128
    peak = flops_per_second()
    if not peak:
        print("no C compiler: the machine's peak is not known")
        return
    log = Log()
    seconds = race(
        {
            "ours": lambda: representations.log_mel(
                [y], sample_rate=22050, framing=framing, bank=bank, power=2, log=log
            )
        },
        rounds,
    )["ours"]
    least = operations * frames / peak
    print(
        f"\nlog-mel 2048/512/128: {seconds / frames * 1e6:.2f} us a frame, about {operations:.0f} "
    )
    print(f"operations, {least / frames * 1e6:.2f} us at the peak of {peak / 1e9:.0f} GFLOP/s: ")
    print(f"{seconds / least:.1f} times as long")


def report(title: str, seconds: dict[str, float], errors: dict[str, float]) -> None:
    ours = {name: value for name, value in seconds.items() if name.startswith("ours")}
    print(f"\n{title}")
    for name, value in seconds.items():
        ratios = ", ".join(f"{value / base:.1f}x" for base in ours.values())
        shown = f"  error {errors[name]:.1e}" if name in errors else ""
        against = "" if name in ours else f"  ours faster by {ratios}"
        print(f"  {name:24} {value * 1e3:9.1f} ms{against}{shown}")


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds, after one warm-up")
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    libraries = {name: installed(name) for name in ("numpy", "scipy", *PEERS)}
    print(", ".join(f"{name} {number}" for name, number in libraries.items()))
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    arithmetic(rounds)
    log_mel(rounds, 2048, 512, 128)
    log_mel(rounds, 512, 128, 128)
    log_mel(rounds, 512, 128, 100)  # more bands kaldi-native-fbank refuses
    presets(rounds)
    short_clips(rounds)
    spectra(rounds)
    constant_q(rounds)


if __name__ == "__main__":
    main()
