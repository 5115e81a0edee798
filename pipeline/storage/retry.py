"""Calls that are tried again when a disk or a network failed for a moment."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

ATTEMPTS = 5
FIRST_WAIT = 0.2  # seconds; doubled before each further attempt: 3 s in all

# Closed on purpose: what is not named here, like ENOENT, EACCES, ENOSPC or EROFS, will not pass by
# itself, and is reported at once.
TRANSIENT_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENOTCONN, errno.EPIPE),
        *(errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
    }
)

T = TypeVar("T")


def transient(error: Exception) -> bool:
    """Whether an error of reading or writing may be gone a moment later.

    >>> transient(OSError(errno.EIO, "Input/output error")), transient(TimeoutError())
    (True, True)
    >>> transient(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    False
    """
    if not isinstance(error, OSError):
        return False
    return error.errno in TRANSIENT_ERRNOS or isinstance(error, (TimeoutError, ConnectionError))


def retrying(
    call: Callable[[], T],
    *,
    transient: Callable[[Exception], bool] = transient,
    attempts: int = ATTEMPTS,
    first_wait: float = FIRST_WAIT,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `call` returns, tried up to `attempts` times while its errors are `transient`.

    The wait before each further attempt, in seconds, is twice the one before. The call must be one
    that may be repeated. Raises its last error.

    >>> answers = iter([TimeoutError(), "read"])
    >>> def read():
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> retrying(read, sleep=lambda seconds: print(f"waits {seconds} s"))
    waits 0.2 s
    'read'
    """
    for attempt in range(attempts - 1):
        try:
            return call()
        except Exception as error:
            if not transient(error):
                raise
        sleep(first_wait * 2**attempt)
    return call()
