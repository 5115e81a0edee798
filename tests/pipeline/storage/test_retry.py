import errno
import os

import pytest

from basilar.pipeline.storage.retry import ATTEMPTS, retrying, transient


class Disk:
    """A file layer that fails a number of times before it reads."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.calls = 0

    def read(self):
        self.calls += 1
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number), "/data/clip.wav")
        return b"samples"


@pytest.mark.parametrize("failures", range(ATTEMPTS))
def test_what_fails_for_a_moment_is_tried_again(failures):
    disk, waits = Disk(*[errno.EIO] * failures), []
    assert retrying(disk.read, sleep=waits.append) == b"samples"
    assert waits == [0.2, 0.4, 0.8, 1.6][:failures]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_will_not_pass_is_raised_at_once(number):
    disk, waits = Disk(number), []
    with pytest.raises(OSError, match=r"/data/clip\.wav") as caught:
        retrying(disk.read, sleep=waits.append)
    assert (caught.value.errno, disk.calls, waits) == (number, 1, [])


def test_the_last_error_is_raised_as_it_was():
    disk, waits = Disk(*[errno.EIO] * (ATTEMPTS - 1), errno.ESTALE), []
    with pytest.raises(OSError, match=r"/data/clip\.wav") as caught:
        retrying(disk.read, sleep=waits.append)
    assert (caught.value.errno, disk.calls, len(waits)) == (errno.ESTALE, ATTEMPTS, ATTEMPTS - 1)


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(), OSError(errno.EAGAIN, "again")]
)
def test_what_is_transient(error):
    assert transient(error)


@pytest.mark.parametrize("error", [ValueError("EIO"), OSError("no number"), FileNotFoundError()])
def test_what_is_not(error):
    assert not transient(error)


def test_what_is_transient_can_be_said():
    answers = iter([KeyError("later"), "found"])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = retrying(
        ask, transient=lambda error: isinstance(error, KeyError), sleep=lambda seconds: None
    )
    assert found == "found"
