"""Children are really killed here: what is tested is what the kernel does, not a model of it."""

import ctypes
import errno
import faulthandler
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basilar.pipeline.audio.isolation import Lost, isolated


def read_null():
    ctypes.string_at(0)


def kill_9():
    os.kill(os.getpid(), signal.SIGKILL)


def allocate_until_refused():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
    held = []
    while True:
        held.append(bytearray(2**24))


DEATHS = {
    "segfault": (read_null, "the decoder died of signal 11 (SIGSEGV), twice"),
    "abort": (os.abort, "the decoder died of signal 6 (SIGABRT), twice"),
    "kill": (kill_9, "the decoder died of signal 9 (SIGKILL), twice"),
    "exit": (lambda: os._exit(3), "the decoder exited with status 3, twice"),
    "quiet exit": (lambda: os._exit(0), "the decoder exited with status 0, twice"),
    "memory": (allocate_until_refused, "the decoder ran out of memory, twice"),
}


def work(items):
    """Do what an item says: a death, a call, or nothing; give back its text."""
    for item in items:
        if item in DEATHS:
            faulthandler.disable()  # pytest's: it would print where
            DEATHS[item][0]()
        if callable(item):
            item = item()
        yield item


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch):
    forked, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(fork()) or forked[-1])
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for pid in forked:
        with pytest.raises(ChildProcessError):  # it neither runs nor is a zombie
            os.waitpid(pid, os.WNOHANG)


@pytest.mark.slow
@pytest.mark.parametrize("children", [1, 2])
@pytest.mark.parametrize("death", DEATHS)
def test_a_death_costs_one_item(death, children):
    items = ["a", "b", death, "c", death, "d"]
    found = dict(isolated(work, items, children=children))
    lost = Lost("crashed", DEATHS[death][1])
    assert found == {0: "a", 1: "b", 2: lost, 3: "c", 4: lost, 5: "d"}


@settings(max_examples=15)
@given(
    items=st.lists(st.sampled_from(["a", "b", "kill", "exit"]), max_size=8),
    children=st.integers(1, 3),
)
def test_every_item_has_its_outcome_once(items, children):
    found = list(isolated(work, items, children=children))
    assert sorted(index for index, _ in found) == list(range(len(items)))
    if children == 1:
        assert [index for index, _ in found] == list(range(len(items)))
    for index, outcome in found:
        item = items[index]
        assert outcome == (Lost("crashed", DEATHS[item][1]) if item in DEATHS else item)


def test_what_takes_too_long_is_killed_and_the_rest_goes_on():
    items = ["a", lambda: time.sleep(3600), "b"]
    started = time.monotonic()
    found = list(isolated(work, items, timeout=0.3))
    lost = Lost("timeout", "decoding took longer than 0.3 s, twice")
    assert found == [(0, "a"), (1, lost), (2, "b")]
    assert 0.6 <= time.monotonic() - started < 60


def test_time_is_given_to_each_item_again():
    items = [lambda: time.sleep(0.2)] * 4
    assert list(isolated(work, items, timeout=0.6)) == [(i, None) for i in range(4)]


def test_a_child_that_ignores_everything_but_sigkill_is_ended():
    def stubborn():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(3600)

    ((_, lost),) = isolated(work, [stubborn], timeout=0.2)
    assert lost.reason == "timeout"


def test_what_dies_once_is_tried_again(tmp_path):
    def once():
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            kill_9()
        return "well"

    assert list(isolated(work, ["a", once, "b"])) == [(0, "a"), (1, "well"), (2, "b")]


def test_two_ways_to_die_are_both_named(tmp_path):
    def first_one_then_the_other():
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            kill_9()
        os._exit(7)

    ((_, lost),) = isolated(work, [first_one_then_the_other])
    said = "the decoder died of signal 9 (SIGKILL), then the decoder exited with status 7"
    assert lost == Lost("crashed", said)


class KnownError(Exception):
    pass


def failing(error):
    def fail():
        raise error

    return fail


def test_an_oserror_comes_as_it_was():
    number = errno.EACCES
    error = PermissionError(number, os.strerror(number), "/data/\udcff.wav")
    with pytest.raises(PermissionError) as caught:
        list(isolated(work, ["a", failing(error), "b"]))
    assert str(caught.value) == str(error)
    assert caught.value.filename == "/data/\udcff.wav"
    with pytest.raises(OSError, match="no number"):
        list(isolated(work, [failing(OSError("no number"))]))


def test_results_before_an_error_are_given_out():
    results = isolated(work, ["a", failing(KnownError("text", 3)), "b"], known=[KnownError])
    assert next(results) == (0, "a")
    with pytest.raises(KnownError) as caught:
        next(results)
    assert caught.value.args == ("text", 3)


@pytest.mark.parametrize("error", [KnownError("unexpected"), SystemExit(3), ValueError(b"bytes")])
def test_any_other_error_comes_with_its_traceback(error):
    with pytest.raises(RuntimeError) as caught:
        list(isolated(work, [failing(error)]))
    assert type(error).__name__ in str(caught.value)
    assert "raise error" in str(caught.value)


def test_a_result_that_json_cannot_say_is_an_error():
    with pytest.raises(RuntimeError, match="not JSON serializable"):
        list(isolated(work, [lambda: {1, 2}]))


def test_long_results_arrive_whole():
    assert list(isolated(work, ["x" * 300_000] * 3)) == [(i, "x" * 300_000) for i in range(3)]


def test_whoever_stops_listening_leaves_no_child():
    results = isolated(work, ["a", lambda: time.sleep(3600)])
    assert next(results) == (0, "a")
    results.close()


def test_children_are_cut_off():
    def what_it_is():
        return {
            "oom": int(Path("/proc/self/oom_score_adj").read_text()),
            "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
            "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "user": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
        }

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        ((_, found),) = isolated(work, [what_it_is])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == {"oom": 1000, "core": 0, "interrupt": True, "user": True}


def test_children_ask_for_no_core_files_also_where_there_are_none(monkeypatch):
    """Most shells allow none already, so that the limit itself shows nothing there."""
    asked, setrlimit = [], resource.setrlimit

    def record(*arguments):
        asked.append(arguments)
        setrlimit(*arguments)

    monkeypatch.setattr(resource, "setrlimit", record)
    ((_, found),) = isolated(work, [lambda: asked])
    assert found == [[resource.RLIMIT_CORE, [0, 0]]]
    assert asked == []  # a child's limits are not its parent's


def test_forking_beside_threads_warns_nobody_and_keeps_no_pipe_open():
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait)]

    def busy():
        for _ in range(8):
            assert list(isolated(work, ["a", "exit"], timeout=20)) == [
                (0, "a"),
                (1, Lost("crashed", DEATHS["exit"][1])),
            ]
        done.append(1)

    done = []
    threads += [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    assert len(done) == 3


PARENT = """
import os, signal, sys, time
from basilar.pipeline.audio.isolation import isolated
signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be inherited as ignored
def work(items):
    for item in items:
        print(os.getpid(), file=sys.stderr, flush=True)
        time.sleep(3600)
        yield 0
list(isolated(work, [0]))
"""


def ends(pid):
    """Whether a process is gone, or a zombie, within a minute."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_its_parent(number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    child = int(parent.stderr.readline())
    if number == signal.SIGINT:  # as a terminal sends it: to the whole group
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    assert ends(child)
    assert said.count("Traceback") == (number == signal.SIGINT)  # the parent's own


interrupts = []  # signals that come while this process forks next; its callbacks stay for good
os.register_at_fork(before=lambda: interrupts and signal.raise_signal(interrupts.pop()))


@pytest.mark.parametrize("first", [True, False])
def test_an_interrupt_that_comes_while_a_child_is_forked_is_not_lost(first):
    interrupts[:] = [signal.SIGINT] * first
    with pytest.raises(KeyboardInterrupt):
        interrupts.extend(signal.SIGINT for _ in isolated(work, ["a", "kill", "b"]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not interrupts
