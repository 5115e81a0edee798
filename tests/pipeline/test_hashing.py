import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from basilar.pipeline import hashing
from basilar.pipeline.hashing import (
    canonical,
    clips_hash,
    content_hash,
    digest,
    hash_of,
    manifest_hash,
    values_hash,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

FILE = "ab" * 32


@given(json_values)
def test_canonical_form_can_be_read_back_and_is_stable(value):
    text = canonical(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


def test_order_of_keys_does_not_matter_and_types_do():
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert len({hash_of("x", v=v) for v in (1, 1.0, "1", True, None, [1], {"1": 1})}) == 7
    assert hash_of("x", v=0.0) == hash_of("x", v=-0.0)
    assert hash_of("x", v=1) != hash_of("y", v=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": float("nan")}]])
def test_what_is_not_a_number_has_no_hash(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(value)


def test_keys_of_a_mapping_must_be_text():
    with pytest.raises(TypeError, match="keys must be strings"):
        canonical({1: 2})


def sha256(*texts):
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def test_pre_images_are_pinned():
    """They address what users have stored: they may change only with `HASH_SCHEMA`."""
    assert hashing.HASH_SCHEMA == 1
    assert (
        hash_of("example", n_fft=2048) == sha256('{"n_fft":2048,"schema":1,"type":"example"}')[:32]
    )
    excerpt = f'{{"duration":1.0,"offset":0.5,"schema":1,"sha256":"{FILE}","type":"excerpt"}}'
    assert content_hash(FILE, 0.5, 1.0) == sha256(excerpt)
    rows = f'["{FILE}","a",null,"train",null]'
    assert (
        manifest_hash([(FILE, "a", None, "train", None)])
        == (sha256('{"schema":1,"type":"manifest"}', rows)[:32])
    )
    assert clips_hash([(FILE, "")]) == sha256('{"schema":1,"type":"clips"}', f'["{FILE}",""]')[:32]
    clip = f'["{FILE}",[3,2],"float32","{FILE}"]'
    assert (
        digest([(FILE, FILE, 3)], n_bins=2, dtype="float32")
        == (sha256('{"schema":1,"type":"digest"}', clip)[:32])
    )


def test_hashes_are_equal_across_processes():
    code = (
        "from basilar.pipeline.hashing import hash_of; "
        "print(hash_of('x', b={'q': 1.5, 'a': 'é'}, a=[1]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "12345")
    }
    assert found == {hash_of("x", a=[1], b={"a": "é", "q": 1.5})}


def test_content_of_a_whole_file_is_the_files():
    assert content_hash(FILE, None, None) == FILE
    excerpts = {content_hash(FILE, *e) for e in ((0.0, None), (None, 1.0), (0.0, 1.0), (1.0, 1.0))}
    assert len(excerpts | {FILE}) == 5


def test_manifest_hash_covers_ids_labels_splits_groups_and_contents():
    clips = [(FILE, "a", "x", "train", "g"), ("cd" * 32, "b", None, "test", None)]
    for i in range(5):
        changed = [tuple("zz" if j == i else v for j, v in enumerate(clips[0])), clips[1]]
        assert manifest_hash(changed) != manifest_hash(clips)


@given(st.lists(st.tuples(st.text(), st.none() | st.text(), st.integers()), max_size=5))
def test_rows_are_hashed_in_canonical_form(rows):
    text = "".join(canonical(list(row)) for row in rows)
    assert hashing._hash_of_rows("t", rows) == sha256('{"schema":1,"type":"t"}', text)[:32]


def test_values_hash_ignores_byte_order_and_strides_not_values():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert values_hash(x) == values_hash(x.astype(">f4")) == values_hash(np.asfortranarray(x))
    assert values_hash(x) != values_hash(x + np.float32(1e-6))


def test_digest_covers_content_shape_dtype_and_values():
    def one(content=FILE, values=FILE, frames=3, n_bins=2, dtype="float32"):
        return digest([(content, values, frames)], n_bins=n_bins, dtype=dtype)

    others = [one(content="c"), one(values="v"), one(frames=2), one(n_bins=3), one(dtype="f2")]
    assert len({one(), *others}) == 6
