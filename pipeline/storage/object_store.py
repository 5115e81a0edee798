"""Requests to object stores: connections, retries, and errors that name the object.

Connections are of one process: a fork makes its own.
"""

import errno
import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from basilar.pipeline.errors import StorageError
from basilar.pipeline.storage.retry import retrying, transient

EXTRAS = {"s3": "s3", "gs": "gs", "az": "az", "memory": "build"}  # protocol: what installs it
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"use_listings_cache": False, "config_kwargs": {"retries": {"max_attempts": 0}}},
    "gs": {"use_listings_cache": False},
    "az": {"use_listings_cache": False},
}
_NUMBERS: dict[type[Exception], int] = {  # errors that will not pass, which have no number there
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
    NotImplementedError: errno.ENOSYS,
}
_NO_ANSWER = {  # what libraries call it that are not imported here
    *("HTTPClientError", "ClientPayloadError", "ClientConnectionError"),
    *("ServiceRequestError", "ServiceResponseError"),
}
_EREMOTEIO = getattr(errno, "EREMOTEIO", 121)  # Linux alone has it
T = TypeVar("T")


def ask(url: str, call: Callable[[Any, str], T]) -> T:
    """What a store answers about the object of a URL, asked again if it failed for a moment.

    `call` takes the store, by fsspec, and the object's name in it. Raises OSError that names the
    object, whatever the store's library raises, and StorageError without that library.
    """
    protocol, _, object_name = url.partition("://")
    store = _store(protocol, os.getpid())
    try:
        return retrying(lambda: call(store, object_name), transient=_passing, attempts=3)
    except Exception as error:  # libraries of stores raise what they like
        for kind, number in _NUMBERS.items():
            if isinstance(error, kind):
                raise OSError(number, os.strerror(number), url) from error
        number = getattr(error, "errno", None) or errno.EIO
        if number == errno.ENOSPC:  # of this machine's disk
            raise
        if number == errno.EINVAL and "precondition" in str(error).lower().replace("-", ""):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url) from error
        said = f"{type(error).__name__}: {error}".split("\n")[0]
        raise OSError(number, said, url) from error


def _passing(error: Exception) -> bool:
    """Whether a later attempt may succeed: there was no answer, or the server failed."""
    if isinstance(error, tuple(_NUMBERS)):
        return False
    code = getattr(error, "code", None) or getattr(error, "status_code", None)
    return (
        transient(error)
        or getattr(error, "errno", None) == _EREMOTEIO  # s3fs says so of a 500
        or code in (429, 500, 502, 503, 504)
        or not _NO_ANSWER.isdisjoint(kind.__name__ for kind in type(error).__mro__)
    )


@cache
def _store(protocol: str, process: int) -> Any:
    """The store of a protocol, as this process talks to it. Raises StorageError without library.

    That of a parent stays known in its children, so that nothing closes its connections there.
    """
    try:
        import fsspec

        store = fsspec.filesystem(
            protocol, **_OPTIONS.get(protocol, {}), skip_instance_cache=protocol != "memory"
        )
    except ImportError as error:
        raise StorageError(
            f"{protocol}://: it needs another library ({error}); install it with pip install "
            f"'basilar[{EXTRAS[protocol]}]'"
        ) from None
    store.retries = 2  # its own, if it has any: those of `ask` come on top
    return store
