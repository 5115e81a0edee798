"""Damaged audio: samples or an AudioError, in a process of its own, whatever the bytes."""

import hashlib
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import CORPORA, REPOSITORY
from tests.fuzz import SECONDS, decoding

# One file each, named after what it must come to. A failing file is saved here as failed-… or
# died-…, and stays, under its new outcome, when it is mended.
REGRESSIONS = REPOSITORY / "tests" / "regressions"
COUNT = 2000


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    decoding.write_seeds(folder, CORPORA if CORPORA.exists() else None)
    return folder


def is_failure(outcome):
    return outcome.startswith(("died", "failed"))


@pytest.mark.slow
def test_damaged_audio_gives_samples_or_a_reason(seeds, capsys):
    seed = time.time_ns() if SECONDS else 0
    stop = time.monotonic() + SECONDS
    outcomes, failures, first = Counter(), {}, 0
    while not first or time.monotonic() < stop:
        jobs = [str(number) for number in range(first, first + COUNT)]
        for number, outcome in decoding.watch(jobs, seeds, seed):
            outcomes[outcome.split(":")[0]] += 1
            if is_failure(outcome):
                data = decoding.mutant(decoding.seeds_in(seeds), seed, int(number))
                name = f"{outcome.split(':')[0]}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
                failures[name] = outcome
                (REGRESSIONS / name).write_bytes(data)
        first += COUNT
    with capsys.disabled():
        if SECONDS:
            print(f"\nseed {seed}, {first} damaged files: {dict(outcomes.most_common())}")
    assert not failures, "\n".join(f"{REGRESSIONS / n}: {o}" for n, o in failures.items())
    # Mostly refused, or mostly whole, would be no test of what lies between.
    assert 0.05 < outcomes["ok"] / first < 0.5
    assert {"corrupt", "truncated", "unsupported", "empty"} <= outcomes.keys()


def test_what_once_failed_comes_to_what_its_name_says(seeds):
    files = sorted(str(file) for file in REGRESSIONS.iterdir())
    assert files
    wrong = [
        f"{file}: {outcome}"
        for file, outcome in decoding.watch(files, seeds, 0)
        if Path(file).name.split("-")[0] != outcome.split(":")[0]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_a_process_that_hangs_costs_one_file(seeds, monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "HANGS", 3)
    os.mkfifo(tmp_path / "fifo")  # opening it waits for ever
    files = [seeds / "WAV-PCM_16", tmp_path / "fifo", seeds / "FLAC-PCM_16"]
    outcomes = [o for _, o in decoding.watch([str(file) for file in files], seeds, 0)]
    assert outcomes == ["ok", "died: -9", "ok"]
