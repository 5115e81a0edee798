"""What an installation or a system may lack: libraries that extras bring, and forks."""

import os
import platform
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from basilar.pipeline.errors import MissingLibraryError, UnsupportedSystemError

CORE = {  # the distribution and its module
    **{name: name for name in ("numpy", "soxr", "soundfile", "av", "pydantic")},
    **{"pyarrow": "pyarrow", "google-crc32c": "google_crc32c", "numcodecs": "numcodecs"},
}
EXTRAS = {
    "build": {
        **{name: name for name in ("luigi", "mlflow", "zarr", "pandas", "typer", "rich", "jinja2")},
        **{name: name for name in ("matplotlib", "fsspec", "filelock")},
        **{"pillow": "PIL", "tomli-w": "tomli_w"},
    },
    "torch": {"torch": "torch", "torchdata": "torchdata"},
    "dask": {"distributed": "distributed"},
    "s3": {"s3fs": "s3fs"},
    "gs": {"gcsfs": "gcsfs"},
    "az": {"adlfs": "adlfs"},
}


def missing(extra: str) -> list[str]:
    """The distributions of an extra that are not installed; none of them is imported.

    >>> missing("build")
    []
    """
    return [name for name, module in EXTRAS[extra].items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def require(module: str, where: str) -> Any:
    """A module of `basilar[build]`, imported. Raises MissingLibraryError that begins with `where`.

    >>> require("zarr", "features").__name__
    'zarr'
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingLibraryError(
            f"{where}: it needs {module} ({error}); install it with pip install 'basilar[build]'"
        ) from error


def can_fork() -> bool:
    """Whether this system has what scans and builds are made of."""
    return hasattr(os, "fork")


def require_fork() -> None:
    """Raise UnsupportedSystemError where scans and builds cannot run."""
    if not can_fork():
        raise UnsupportedSystemError(
            f"{platform.system()}: scans and builds need a system that forks processes; run them "
            "on Linux (reading, training and bundles work here)"
        )
