"""The kernel by other compilers, and on an emulated 64-bit Arm: the bits of the twin."""

import shutil
import struct
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from basilar.dsp.kernel import Bank, Program, native, twin
from tests.conftest import REPOSITORY
from tests.dsp.kernel.test_native import bands_of, tables_of
from tests.dsp.kernel.test_twin import log_of
from tests.dsp.kernel.test_twin_fft import LENGTHS

FOLDER = REPOSITORY / "dsp" / "kernel"
ARM = ("aarch64-linux-gnu-gcc", "qemu-aarch64-static")


@pytest.fixture
def programs(corpora):
    """Programs of every length and with every step, each with a second or two of music."""
    y = sf.read(corpora / "music" / "pyminiaudio__music.flac", dtype="float32", always_2d=True)[0]
    y = np.ascontiguousarray(y[:60_000, 0])
    rng = np.random.default_rng(0)
    made = []
    for n_fft in LENGTHS:
        window = rng.random(n_fft).astype(np.float32)
        program = Program(window, max(1, n_fft // 4), n_fft, output="complex")
        made.append((program, y[: 6 * n_fft + n_fft // 2]))
    for n_fft, length, hop_length in ((2048, 2048, 512), (512, 400, 160), (400, 400, 160)):
        window = (np.hanning(n_fft) * (np.arange(n_fft) < length)).astype(np.float32)
        filters = rng.random((40, n_fft // 2 + 1)).astype(np.float32)
        kaldi = {"preemphasis": 0.97, "remove_dc": True} if length < n_fft else {}
        rest = {"output": "magnitude", "bank": Bank.of(filters), "log": log_of(4.34)}
        made.append((Program(window, hop_length, length, **kaldi, **rest), y))
    for n_fft, output in ((96, "complex"), (4096, "power"), (1000, "magnitude")):
        window = np.ones(n_fft, np.float32)
        bands = bands_of(n_fft, n_points=n_fft // 8)
        made.append((Program(window, n_fft // 2, n_fft, output=output, bands=bands), y))
    filters = Bank.of(rng.random((7, 300)).astype(np.float32))
    made.append((Program(np.ones(300, np.float32), 50, 300, output="samples", bank=filters), y))
    return made


@pytest.mark.slow
@pytest.mark.skipif(not native.is_there(), reason="no compiler made the kernel here")
@pytest.mark.parametrize("compiler", ["gcc", "clang", ARM[0]])
def test_the_bits_are_those_of_the_twin(compiler, programs, tmp_path, monkeypatch):
    emulator = [ARM[1]] if compiler == ARM[0] else []
    for tool in (compiler, *emulator):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    arrays = [struct.pack("q", len(programs))]
    expected = b""
    for program, y in programs:
        for table in (*tables_of(program, monkeypatch).values(), y):
            arrays += [struct.pack("q", table.nbytes), np.ascontiguousarray(table).tobytes()]
        count, n_low = program.n_frames(y.size), program.bands.n_low if program.bands else 0
        out, lower = (np.empty((count, width), np.float32) for width in (program.width, n_low))
        twin.Plan(program).run((y,), out, lower if n_low else None)
        expected += out.tobytes() + lower.tobytes()
    (tmp_path / "in").write_bytes(b"".join(arrays))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    (extension,) = project["tool"]["setuptools"]["ext-modules"]
    headers = [f"-I{sysconfig.get_paths()['include']}", f"-I{FOLDER}"]
    # What needs Python's library is never called.
    rest = ["-static", "-Wl,--unresolved-symbols=ignore-all", "-w", "-o", "alone"]
    source = Path(__file__).with_name("alone.c")
    command = [compiler, *extension["extra-compile-args"], *headers, source, *rest]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([*emulator, "./alone", "in", "out"], cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "out").read_bytes() == expected
