"""Bytes: atomic commits, checksums, locks, object stores, temporary files.

`storage.exists(path)`, `storage.fetch(path)` and the rest do for local paths what the file system
does, and for working copies of remote objects (`storage.urls`) what the object store does.
"""

from basilar.pipeline.storage.prefetch import read_ahead
from basilar.pipeline.storage.read_cache import cached, use
from basilar.pipeline.storage.remote import (
    FEATURES,
    ObjectStatus,
    children,
    commit,
    create,
    drop,
    exists,
    fetch,
    is_folder,
    list_objects,
    members,
    remove,
)
from basilar.pipeline.storage.urls import is_remote, name, place, shown

__all__ = [
    "FEATURES",
    "ObjectStatus",
    "cached",
    "children",
    "commit",
    "create",
    "drop",
    "exists",
    "fetch",
    "is_folder",
    "is_remote",
    "list_objects",
    "members",
    "name",
    "place",
    "read_ahead",
    "remove",
    "shown",
    "use",
]
