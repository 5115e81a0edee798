"""The errors that Basilar raises on purpose: each derives from `BasilarError` and a built-in.

Messages have the form `WHERE: WHAT; WHAT TO DO`. Errors that only one module raises and catches
are defined in that module.
"""

from collections.abc import Sequence


class BasilarError(Exception):
    """The base of every error that Basilar raises on purpose."""


class StorageError(BasilarError, ValueError):
    """A path or URL that cannot be used; the message says which can, or what to install."""


class MissingLibraryError(BasilarError, ImportError):
    """A library that this installation does not have; the message says what installs it."""


class UnsupportedSystemError(BasilarError, OSError):
    """A system that cannot do what was asked; the message says which can."""


class DamagedArtifactError(BasilarError, RuntimeError):
    """An artifact whose bytes are not those that were written."""


class ForeignStoreError(BasilarError, ValueError):
    """A Zarr store that is not a feature set."""


class BusyError(BasilarError, OSError):
    """A root that another process is using; the message says which, and what to do."""


class RecipeError(BasilarError, ValueError):
    """A recipe that cannot be used; the message names the file, the key and what is allowed."""


class ManifestError(BasilarError, ValueError):
    """A data set that cannot be used; the message names the file, the row and what to do."""


class ChangedAudioError(BasilarError, RuntimeError):
    """A file whose content is not what the manifest says."""


class CanaryError(BasilarError, RuntimeError):
    """A stage that does not compute what it should; the message names it and the difference."""


class NoRecordError(BasilarError, ValueError):
    """No key, or more than one, is recorded in the place that was searched."""


class IncomparableError(BasilarError, ValueError):
    """Two things that have nothing in common that could be compared."""


class BundleError(BasilarError, ValueError):
    """A bundle that cannot be used; the message names the file and what is wrong."""


class TrackerError(BasilarError, ConnectionError):
    """The tracking server could not be used; the message names it."""


class SchedulerError(BasilarError, RuntimeError):
    """A Luigi scheduler (luigid) that does not answer."""


class LostWorkerError(BasilarError, RuntimeError):
    """A process that ended before its task did."""


class ClusterError(BasilarError, RuntimeError):
    """A cluster that cannot be used; the message says why, and what to do."""


class TooManyBadError(BasilarError, RuntimeError):
    """More clips were quarantined than `max_bad` allows."""


class RepairError(DamagedArtifactError):
    """A feature set that cannot be repaired; nothing was changed."""


class UsageError(BasilarError, ValueError):
    """What was asked for is not possible as it was asked."""


class BuildFailedError(BasilarError, RuntimeError):
    """A build that failed: the message says what, and `failures` are the messages of its tasks."""

    def __init__(self, message: str, failures: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)
