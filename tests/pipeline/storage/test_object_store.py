"""What is asked of a store, over the functions that ask it."""

import errno
import importlib.util
from functools import partial

import pytest

from basilar.pipeline import storage
from basilar.pipeline.storage import object_store
from basilar.pipeline.storage.retry import retrying


def answer(**code):
    """An error of a store's library that knows the status of an HTTP answer."""
    return type("AnswerError", (Exception,), code)()


def test_a_missing_library_is_named_with_what_installs_it(basilar):
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    code, _, said = basilar("ls", "--root", "gs://bucket/features")
    assert code == 2
    assert "pip install 'basilar[gs]'" in said
    assert said.count("\n") == 3


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        OSError(errno.EBUSY, "SlowDown"),
        OSError(errno.EREMOTEIO, "InternalError"),
        answer(code=429),
        type("EndpointConnectionError", (type("HTTPClientError", (Exception,), {}),), {})(),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again_and_then_named(memory, monkeypatch, error):
    memory.pipe_file("/bucket/file.json", b"{}")
    path, calls, get_file = storage.place("memory://bucket/file.json"), [], type(memory).get_file
    monkeypatch.setattr("basilar.pipeline.storage.retry.time.sleep", lambda seconds: None)
    monkeypatch.setattr(object_store, "retrying", partial(retrying, sleep=lambda seconds: None))

    def fails(times):
        def get(self, *arguments):
            calls.append(arguments)
            if len(calls) <= times:
                raise error
            return get_file(self, *arguments)

        calls.clear()
        monkeypatch.setattr(type(memory), "get_file", get)

    fails(2)
    assert storage.fetch(path).read_bytes() == b"{}"
    storage.drop(path)
    fails(100)
    with pytest.raises(OSError, match=type(error).__name__) as failed:
        storage.fetch(path)
    assert (failed.value.filename, len(calls)) == ("memory://bucket/file.json", 3)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("name", ["code", "status_code"])
def test_which_answers_may_be_others_a_moment_later(name):
    passing = {code for code in range(100, 600) if object_store._passing(answer(**{name: code}))}
    assert passing == {429, 500, 502, 503, 504}


@pytest.mark.parametrize("error", [PermissionError("AccessDenied"), FileNotFoundError("x")])
def test_what_will_not_pass_is_said_at_once(memory, monkeypatch, error):
    calls = []

    def get_file(*arguments):
        calls.append(arguments)
        raise error

    monkeypatch.setattr(type(memory), "get_file", get_file)
    with pytest.raises(type(error), match="memory://bucket/file") as failed:
        storage.fetch(storage.place("memory://bucket/file.json"))
    assert failed.value.errno in (errno.EACCES, errno.ENOENT)
    assert len(calls) == 1
