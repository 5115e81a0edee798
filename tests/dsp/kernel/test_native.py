"""C against its twin: the same bits, whatever the number of lanes; and what C refuses."""

import threading
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.dsp.kernel import Bands, Bank, Program, native, twin
from tests.dsp.kernel.test_twin import log_of
from tests.dsp.kernel.test_twin_fft import LENGTHS

pytestmark = pytest.mark.skipif(not native.is_there(), reason="no compiler made the kernel here")


def compare(program, *signals):
    """Assert that all of them write the same bytes, and nothing beyond."""
    count = sum(program.n_frames(y.size) for y in signals)
    widths = program.width, program.bands.n_low if program.bands else 0
    expected = [np.empty((count, width), np.float32) for width in widths]
    lower = expected[1] if widths[1] else None
    with np.errstate(all="ignore"):
        twin.Plan(program).run(signals, expected[0], lower)
    for lanes in native.widths():
        rooms = [np.full((count + 2, width), 7, np.float32) for width in widths]
        inner = rooms[1][1:-1] if widths[1] else None
        assert native.plan(program, lanes).run(signals, rooms[0][1:-1], inner) == count
        for room, wanted in zip(rooms, expected, strict=True):
            assert room[1:-1].tobytes() == wanted.tobytes(), lanes
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
    output = draw(st.sampled_from(["complex", "power", "magnitude", "samples"]))
    bank = log = None
    values = n_fft if output == "samples" else n_fft // 2 + 1
    if output != "complex" and draw(st.booleans()):
        filters = rng.standard_normal((draw(st.integers(1, 9)), values))
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


@st.composite
def banded(draw):
    """Programs of bands: filters from anywhere to anywhere, with and without a lower rate."""
    low = draw(st.booleans())
    n_fft = draw(st.integers(1, 40)) * 8 if low else draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_points, lead = draw(st.integers(1, 60)), draw(st.integers(0, max(0, n_fft // 4 - 1)))
    head = draw(st.integers(0, n_points - 1))
    start = rng.integers(-(n_fft // 2), n_fft, draw(st.integers(0, 11)))
    weights = [rng.standard_normal(rng.integers(0, n_fft - first + 1)) for first in start]
    bands = Bands(
        *(n_points, head, draw(st.integers(1, n_points - head))),
        start=start.astype(np.int32),
        weights=tuple(w.astype(np.float32) for w in weights),
        turns=rng.standard_normal((n_fft // 2 + 1, 2)).astype(np.float32),
        phases=rng.standard_normal((len(start), 2)).astype(np.float32),
        lowpass=rng.random(n_fft // 8 + 1).astype(np.float32) if low else None,
        low_lead=lead if low else 0,
        n_low=draw(st.integers(1, n_fft // 4 - lead)) if low else 0,
    )
    window = rng.standard_normal(n_fft).astype(np.float32)
    output = draw(st.sampled_from(["complex", "power", "magnitude"]))
    return Program(window, draw(st.integers(1, 2 * n_fft)), n_fft, output=output, bands=bands)


@given(
    programs() | banded(),
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


@given(st.integers(0, 15), st.sampled_from([-1, 0, 3, 2**22 + 1, 2**31 - 1, -(2**31)]))
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


def bands_of(n_fft, **change):
    """Three filters of a program with everything: aliased, below 0 and above half the rate."""
    rng = np.random.default_rng(0)
    tables = {
        "n_points": 6,
        "head": 1,
        "n_rows": 4,
        "start": np.array([-3, 2, n_fft // 2 - 5], np.int32),
        "weights": tuple(rng.random(n).astype(np.float32) for n in (9, 17, 10)),
        "turns": rng.random((n_fft // 2 + 1, 2)).astype(np.float32),
        "phases": rng.random((3, 2)).astype(np.float32),
        "lowpass": rng.random(n_fft // 8 + 1).astype(np.float32),
        "low_lead": 2,
        "n_low": n_fft // 4 - 3,
    }
    return Bands(**tables | change)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *product(
            *(
                (
                    "band_turns",
                    "phases",
                    "lowpass",
                    "low_turns",
                    "inverse_radices",
                    "inverse_turns",
                ),
            ),
            ("longer", "shorter"),
        )
    ],
)
def test_c_refuses_tables_of_bands_of_other_sizes(name, change, monkeypatch):
    window = np.ones(96, np.float32)
    tables = tables_of(Program(window, 40, 96, bands=bands_of(96)), monkeypatch)
    table = tables[name].ravel()
    changed = np.append(table, table[:1]) if change == "longer" else table[:-1]
    with pytest.raises(ValueError, match=r"must be|product|is none of"):
        native._native.Plan(**tables | {name: changed})


@given(st.integers(9, 15), st.sampled_from([-97, -48, -1, 0, 1, 5, 7, 24, 96, 97, 2**22 + 1]))
def test_c_refuses_sizes_of_bands_that_do_not_fit(which, value):
    with pytest.MonkeyPatch.context() as patch:
        tables = tables_of(
            Program(np.ones(96, np.float32), 40, 96, output="magnitude", bands=bands_of(96)), patch
        )
    ints = tables["ints"].copy()
    ints[which] = value
    try:
        plan = native._native.Plan(**tables | {"ints": ints})
    except (ValueError, MemoryError):
        return
    n_rows, n_low = int(ints[13]), int(ints[15])
    lower = np.empty((8, n_low), np.float32) if n_low else None
    assert plan.run((np.ones(400, np.float32),), np.empty((8, 3 * n_rows), np.float32), lower) == 8


def test_either_output_of_bands_may_be_left_out(noise):
    program = Program(np.ones(96, np.float32), 40, 96, output="complex", bands=bands_of(96))
    y = noise(1000)
    count, n_low = program.n_frames(y.size), 21
    for plan in (native.plan(program), twin.Plan(program)):
        out, lower = np.empty((count, program.width), "f4"), np.empty((count, n_low), "f4")
        plan.run((y,), out, lower)
        alone, below = np.empty_like(out), np.empty_like(lower)
        plan.run((y,), alone)
        plan.run((y,), None, below)
        assert alone.tobytes() == out.tobytes()
        assert below.tobytes() == lower.tobytes()
        with pytest.raises(ValueError, match=r"lower: it must be float32 \(\d+, 21\)"):
            plan.run((y,), out, lower[1:])
    for made in (native.plan, twin.Plan):
        plain = made(Program(np.ones(8, np.float32), 8, 8))
        with pytest.raises(TypeError, match="out: it must be an array"):
            plain.run((y,), None)
        with pytest.raises(ValueError, match="lower: the plan has no lower rate"):
            plain.run((y,), np.empty((125, 5), np.float32), lower)


def test_frames_of_many_signals_share_a_group(noise):
    """Signals of few frames, some of none, in any order."""
    program = Program(np.hanning(64).astype(np.float32), 24, 60, preemphasis=0.9, remove_dc=True)
    sizes = [60, 59, 84, 500, 0, 61, 700, 60, 60, 60, 12, 108, 2000, 60]
    compare(program, *(noise(size, seed) for seed, size in enumerate(sizes)))


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
