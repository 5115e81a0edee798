"""Canonical form, hashes, keys and digests: the addresses of everything Basilar makes.

Every hash is SHA-256 over canonical JSON: sorted keys, no spaces, ASCII, floats in their shortest
form, NaN and infinities refused. Each pre-image carries a type tag and a schema version, and
downstream pre-images contain upstream hashes. 32 hex digits are kept.

A recipe hash covers every parameter that changes a number, and op versions. Left out on purpose:
names and paths, workers, shard size, chunks and codec (values do not depend on them), library
versions (recorded, and guarded by the canaries). The identity of a decoder enters keys for lossy
formats only.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH_SCHEMA = 1


def canonical(value: Any) -> str:
    """Canonical JSON of dicts with string keys, lists, strings, numbers, booleans and None.

    Raises ValueError for NaN and infinities, TypeError for types that JSON does not have.

    >>> canonical({"b": [1, 1.0, -0.0], "a": "é"})
    '{"a":"\\\\u00e9","b":[1,1.0,0.0]}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # fast path: isinstance(value, Mapping) is slow
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"keys must be strings: {sorted(map(repr, value))}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value == 0:
        return 0.0  # -0.0 and 0.0 give the same features
    return value


def hash_of(type_tag: str, **fields: Any) -> str:
    """The hash of named fields under a type tag: 32 hex digits.

    >>> hash_of("example", n_fft=2048) == hash_of("example", n_fft=2048.0)
    False
    """
    return _sha256(canonical({"type": type_tag, "schema": HASH_SCHEMA, **fields}).encode())[:32]


def content_hash(sha256: str, offset: float | None, duration: float | None) -> str:
    """The hash of a clip's content: a file's SHA-256, or that of file and excerpt (64 digits)."""
    if offset is None and duration is None:
        return sha256
    pre_image = {"type": "excerpt", "schema": HASH_SCHEMA, "sha256": sha256}
    return _sha256(canonical({**pre_image, "offset": offset, "duration": duration}).encode())


def clips_hash(clips: Iterable[tuple[str, str]]) -> str:
    """The hash of clips in order: of each the content, and its decoder if values depend on it.

    >>> clips_hash([("0f" * 32, "")]) == clips_hash([("0f" * 32, "libsndfile 1.2.2")])
    False
    """
    return _hash_of_rows("clips", clips)


def manifest_hash(clips: Iterable[tuple[str, str, str | None, str, str | None]]) -> str:
    """The hash of a data set: (content, id, label, split, group) of each clip.

    Clips are ordered by content, then by id.
    """
    return _hash_of_rows("manifest", clips)


def values_hash(values: NDArray[Any]) -> str:
    """SHA-256 of an array's values in C order, little-endian (64 hex digits)."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return _sha256(little.reshape(-1).view(np.uint8).data)


def digest(clips: Iterable[tuple[str, str, int]], *, n_bins: int, dtype: str) -> str:
    """The digest of a feature set: content, values hash and frames of its clips in content order.

    Equal values give equal digests, whatever the chunks, codec, shards, workers or engine.
    """
    rows = ((content, (frames, n_bins), dtype, values) for content, values, frames in clips)
    return _hash_of_rows("digest", rows)


def _hash_of_rows(type_tag: str, rows: Iterable[tuple[Any, ...]]) -> str:
    """The hash of many rows of strings, whole numbers and None, each in canonical form."""
    running = hashlib.sha256(canonical({"type": type_tag, "schema": HASH_SCHEMA}).encode())
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, 4096)):
        running.update("".join(map(_row, batch)).encode())
    return running.hexdigest()[:32]


def _row(row: tuple[Any, ...]) -> str:
    """The same text as `canonical` gives, in a fifth of the time."""
    return f"[{','.join([_quoted(x) if isinstance(x, str) else _other(x) for x in row])}]"


def _other(value: Any) -> str:
    if value is None:
        return "null"
    return _row(value) if isinstance(value, tuple) else str(int(value))


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
