"""Bytes: atomic commits, checksums, locks, object stores, temporary files.

`storage.exists(path)`, `storage.fetch(path)` … do for local paths what the file system does, and for
working copies of remote objects (`basilar.pipeline.storage.urls`) what the object store does.
"""

from basilar.pipeline.storage.prefetch import read_ahead
from basilar.pipeline.storage.read_cache import cached, use
from basilar.pipeline.storage.remote import (
    FEATURES,
    Status,
    children,
    commit,
    create,
    drop,
    exists,
    fetch,
    files,
    is_folder,
    members,
    remove,
)
from basilar.pipeline.storage.urls import is_remote, name, place, shown

__all__ = [
    "FEATURES",
    "Status",
    "cached",
    "children",
    "commit",
    "create",
    "drop",
    "exists",
    "fetch",
    "files",
    "is_folder",
    "is_remote",
    "members",
    "name",
    "place",
    "read_ahead",
    "remove",
    "shown",
    "use",
]
