"""C against its twin: the same bits, whatever the number of lanes; and what C refuses."""

import threading
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.kernel import Bank, Program, native, twin
from tests.dsp.kernel.test_twin import LENGTHS, log_of

pytestmark = pytest.mark.skipif(not native.is_there(), reason="no compiler made the kernel here")


def compare(program, *signals):
    """Assert that all of them write the same bytes, and nothing beyond."""
    count = sum(program.n_frames(y.size) for y in signals)
    expected = np.empty((count, program.width), np.float32)
    with np.errstate(all="ignore"):
        twin.Plan(program).run(signals, expected)
    for lanes in native.widths():
        room = np.full((count + 2, program.width), 7, np.float32)
        assert native.plan(program, lanes).run(signals, room[1:-1]) == count
        assert room[1:-1].tobytes() == expected.tobytes(), lanes
        assert (room[[0, -1]] == 7).all()


def test_this_processor_has_its_lanes():
    (flags,) = {
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    } or {""}
    has = set(flags.split())
    lanes = 16 if {"avx512f", "avx512dq"} <= has else 8 if "avx2" in has else 4
    assert native.widths() == tuple(n for n in (4, 8, 16) if n <= lanes)


@pytest.mark.parametrize("output", ["complex", "power", "magnitude"])
@pytest.mark.parametrize("n_fft", LENGTHS)
def test_every_length_has_the_bits_of_the_twin(n_fft, output, noise):
    window = np.random.default_rng(n_fft).random(n_fft).astype(np.float32)
    program = Program(window, max(1, n_fft // 4), n_fft, output=output)
    compare(program, noise(3 * n_fft, 1), noise(n_fft + n_fft // 2, 2))


@pytest.mark.parametrize("n_frames", range(41))
def test_every_number_of_frames(n_frames, noise):
    program = Program(np.hanning(64).astype(np.float32), 24, 64)
    compare(program, noise(64 + (n_frames - 1) * 24 if n_frames else 63, n_frames))


def test_real_audio(corpora):
    import soundfile as sf

    for file in sorted((corpora / "music").glob("*.flac"))[:2] or pytest.fail("no FLAC files"):
        y = sf.read(file, dtype="float32", always_2d=True)[0].mean(axis=1)[:200_000]
        mels = np.tri(40, 1025, dtype=np.float32)
        window = np.hanning(2048).astype(np.float32)
        compare(Program(window, 512, 2048, bank=Bank.of(mels), log=log_of()), y)


@st.composite
def programs(draw):
    n_fft = draw(st.integers(1, 300))
    length = draw(st.integers(1, n_fft))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    window = rng.standard_normal(n_fft).astype(np.float32)
    output = draw(st.sampled_from(["complex", "power", "magnitude"]))
    bank = log = None
    if output != "complex" and draw(st.booleans()):
        filters = rng.standard_normal((draw(st.integers(1, 9)), n_fft // 2 + 1))
        filters[rng.random(filters.shape) < 0.4] = 0
        bank = Bank.of(filters.astype(np.float32))
    if output != "complex" and draw(st.booleans()):
        log = log_of(4.3, floor=1e-3, add=draw(st.booleans()), gain=0.5, offset=0.3, factor=2.0)
    return Program(
        *(window, draw(st.integers(1, 2 * n_fft)), length),
        preemphasis=draw(st.sampled_from([0.0, 0.97])),
        remove_dc=draw(st.booleans()),
        output=output,
        bank=bank,
        log=log,
    )


@given(
    programs(),
    st.lists(st.integers(0, 3000), max_size=4),
    st.sampled_from([1.0, 1e-30, 1e25, 0.0, np.nan]),
    st.integers(0, 99),
)
def test_any_program_on_any_signals_has_the_bits_of_the_twin(program, sizes, scale, seed):
    rng = np.random.default_rng(seed)
    signals = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    for y in signals:
        y[y.size // 2 :] *= np.float32(scale)
    compare(program, *signals)


def test_threads_share_a_plan(noise):
    program = Program(np.hanning(512).astype(np.float32), 128, 512)
    y = noise(100_000)
    plan, outs = native.plan(program), np.zeros((8, program.n_frames(y.size), 257), np.float32)
    threads = [threading.Thread(target=plan.run, args=((y,), out)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(out.tobytes() == outs[0].tobytes() for out in outs[1:])
    assert outs[0].any()


@pytest.mark.parametrize(
    ("signals", "out", "error", "message"),
    [
        ([np.ones(8, np.float32)], np.ones((2, 3), np.float32), TypeError, "tuple"),
        ((np.ones(8),), np.ones((2, 3), np.float32), TypeError, "float32"),
        ((np.ones(16, np.float32)[::2],), np.ones((2, 3), np.float32), ValueError, "contiguous"),
        ((np.ones(8, np.float32),), np.ones((2, 4), np.float32), ValueError, r"\(2, 3\)"),
        ((np.ones(8, np.float32),), np.ones((2, 3)), ValueError, r"\(2, 3\)"),
        ((np.ones(8, np.float32),), np.ones((2, 6), np.float32)[:, ::2], ValueError, "contiguous"),
        ((None,), np.ones((2, 3), np.float32), TypeError, "bytes-like"),
    ],
)
def test_c_refuses_other_arrays(signals, out, error, message):
    plan = native.plan(Program(np.ones(4, np.float32), 4, 4))
    with pytest.raises(error, match=message):
        plan.run(signals, out)
    good = np.empty((2, 3), np.float32)
    assert plan.run((np.ones(8, np.float32),), good) == 2


def test_c_writes_to_no_array_that_is_read_only():
    out = np.ones((2, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        native.plan(Program(np.ones(4, np.float32), 4, 4)).run((np.ones(8, np.float32),), out)


def tables_of(program, monkeypatch):
    """What `native.plan` gives to C."""
    given = {}
    with monkeypatch.context() as patch:
        patch.setattr(native._native, "Plan", lambda **tables: given.update(tables))
        native.plan(program)
    return given


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *product(
            ("window", "column", "turns", "radices", "fft_turns", "roots"), ("longer", "shorter")
        ),
        *product(("column", "radices"), ("other",)),
    ],
)
def test_c_refuses_tables_of_other_sizes(name, change, monkeypatch):
    tables = tables_of(Program(np.ones(96, np.float32), 4, 96), monkeypatch)
    table = tables[name].ravel()
    changed = {
        "longer": np.append(table, table[:1]),
        "shorter": table[:-1],
        "other": table + table.dtype.type(97),
    }[change]
    with pytest.raises(ValueError, match=r"must be|not within|is none of|product"):
        native._native.Plan(**tables | {name: changed})


@given(st.integers(0, 8), st.sampled_from([-1, 0, 3, 2**22 + 1, 2**31 - 1, -(2**31)]))
def test_c_refuses_numbers_that_do_not_fit(which, value):
    with pytest.MonkeyPatch.context() as patch:
        tables = tables_of(Program(np.ones(96, np.float32), 4, 96), patch)
    ints = tables["ints"].copy()
    ints[which] = value
    try:
        plan = native._native.Plan(**tables | {"ints": ints})
    except (ValueError, MemoryError):
        return
    # Whatever C takes, it computes without reading or writing beyond: run with sanitizers, too.
    y, width = np.ones(400, np.float32), 49 * (2 if ints[4] == 0 else 1)
    count = max(0, 1 + (y.size - int(ints[2])) // int(ints[1]))
    assert plan.run((y,), np.empty((count, width), np.float32)) == count


def test_filters_that_leave_the_bins_are_refused(monkeypatch):
    bank = Bank.of(np.ones((2, 49), np.float32))
    tables = tables_of(Program(np.ones(96, np.float32), 4, 96, bank=bank), monkeypatch)
    for name, values in (("start", [0, 1]), ("count", [49, 50]), ("start", [-1, 0])):
        with pytest.raises(ValueError, match="is not within"):
            native._native.Plan(**tables | {name: np.array(values, np.int32)})


def test_a_kernel_of_other_sources_is_refused(monkeypatch):
    monkeypatch.setattr(native, "VERSION", 99)
    with pytest.raises(ImportError, match="compile it again"):
        native.is_there()
