"""The bits of functions of arrays, whatever code NumPy and OpenBLAS choose for the processor."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
from numpy._core import _multiarray_umath

from basilar.dsp import cepstrum, chroma, pcen, spectral
from basilar.dsp.kernel import Bank, Program, over_rows, twin
from tests.conftest import REPOSITORY


def values():
    """What each function makes of seeded noise; odd sizes, so that vectors have left-over ends."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(20_011).astype(np.float32)
    frames_tn = np.lib.stride_tricks.sliding_window_view(y, 997)[::251]
    magnitude_ft = rng.gamma(0.5, 10.0, (513, 301)).astype(np.float32)
    mel_tm = rng.gamma(0.3, 2.0**20, (301, 79)).astype(np.float32)
    frequencies = np.arange(513) * (22050 / 1024)

    def pcen_of(*, bias, power):
        return pcen.pcen(
            mel_tm,
            sample_rate=22050,
            hop_length=512,
            gain=0.98,
            bias=bias,
            power=power,
            time_constant=0.4,
            eps=1e-6,
        )

    to_chroma = chroma.stft_to_chroma(
        sample_rate=22050, n_fft=1024, n_chroma=12, tuning=0.1, ctroct=5, octwidth=2, base_c=True
    )
    from_cqt = chroma.cqt_to_chroma(513, bins_per_octave=36, n_chroma=12, fmin=32.7, base_c=True)
    chroma_ct = over_rows(magnitude_ft.T, bank=to_chroma).T
    made = {
        "lifter": cepstrum.lifter(20, 22, convention="htk"),
        "chroma_cqt": over_rows(magnitude_ft.T, bank=from_cqt),
        "chroma_max": chroma.normalize(chroma_ct, norm="max"),
        "chroma_l2": chroma.normalize(chroma_ct, norm="l2"),
        "log2": pcen.log2(rng.gamma(0.1, 1e3, 10_007) + 1e-30),
        "exp2": pcen.exp2(rng.uniform(-1000, 1000, 10_007)),
        "rms": spectral.rms(frames_tn),
        "zero_crossing_rate": spectral.zero_crossing_rate(frames_tn),
        "spectral_centroid": spectral.spectral_centroid(magnitude_ft, frequencies=frequencies),
        "spectral_rolloff": spectral.spectral_rolloff(
            magnitude_ft, frequencies=frequencies, roll_percent=0.85
        ),
    }
    program = Program(
        np.hanning(400).astype(np.float32),
        160,
        400,
        bank=Bank.of(np.tri(40, 201, dtype=np.float32)),
    )
    made["kernel"] = np.empty((program.n_frames(y.size), 40), np.float32)
    twin.Plan(program).run((y,), made["kernel"])
    for norm in ("ortho", "none", "htk"):
        made[f"mfcc_{norm}"] = over_rows(
            magnitude_ft.T, bank=cepstrum.dct_matrix(20, 513, norm=norm)
        )
    for mode in ("nearest", "interp"):
        for order in (1, 2):
            made[f"deltas_{mode}_{order}"] = cepstrum.deltas(
                mel_tm, width=9, order=order, mode=mode
            )
    for bias, power in ((2.0, 0.5), (2.0, 0.3), (2.0, 0.0), (0.0, 0.3)):
        made[f"pcen_{bias}_{power}"], made[f"state_{bias}_{power}"] = pcen_of(
            bias=bias, power=power
        )
    return made


def hashes():
    return {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in values().items()}


def test_bits_do_not_depend_on_the_processors_features():
    features = _multiarray_umath.__cpu_features__
    disabled = [name for name in _multiarray_umath.__cpu_dispatch__ if features[name]]
    code = (
        "import json; from tests.dsp.test_dispatch import hashes\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
        f"assert not any(features[name] for name in {disabled})\n"
        "print(json.dumps(hashes()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env=os.environ
        | {"NPY_DISABLE_CPU_FEATURES": " ".join(disabled), "OPENBLAS_CORETYPE": "Nehalem"},
    )
    assert json.loads(done.stdout) == hashes()
