import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.table import CLIP_COLUMNS


def test_manifest_and_audio_move_together(audio_folder, tmp_path):
    manifest = scan(audio_folder)
    manifest.write(tmp_path / "manifest.parquet")
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    again = Manifest.read(moved / "manifest.parquet")
    assert again.root == moved / "audio"
    assert (again.root / again.column("path")[0]).exists()


def test_a_root_elsewhere_is_recorded_as_it_is(audio_folder, tmp_path):
    manifest = scan(audio_folder)
    file = tmp_path / "elsewhere" / "deep" / "manifest.parquet"
    manifest.write(file)
    assert Manifest.read(file).root == audio_folder


def test_another_parquet_file_is_no_manifest(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ManifestError, match="not a manifest; make one with basilar scan DIR"):
        Manifest.read(tmp_path / "other.parquet")


@pytest.mark.parametrize("path", ["../x.wav", "/x.wav", "a/../../x.wav", ""])
def test_paths_that_leave_the_root_are_refused_on_reading(audio_folder, path):
    manifest = scan(audio_folder)
    forged = manifest.table.to_pylist()
    forged[0]["path"] = path
    file = audio_folder / "m.parquet"
    Manifest(manifest.root, pa.Table.from_pylist(forged, CLIP_COLUMNS)).write(file)
    with pytest.raises(ManifestError, match=r"leads out of the root|has no path"):
        Manifest.read(file)


POSSIBLE = {  # the outermost values of columns of numbers, and those just beyond
    "duration": ([None, 5e-324, 1e300], [0.0, -1.0, float("inf"), float("nan")]),
    "offset": ([None, 0.0, 1e300], [-5e-324, float("inf"), float("nan")]),
    **dict.fromkeys(("sample_rate", "channels", "n_samples"), ([0, 2**62], [None, -1])),
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_numbers_that_no_scan_makes_are_refused_on_reading(audio_folder, tmp_path, name):
    manifest = scan(audio_folder)
    rows, file = manifest.table.to_pylist(), tmp_path / "m.parquet"

    def read_with(value):
        rows[3][name] = value
        Manifest(manifest.root, pa.Table.from_pylist(rows, CLIP_COLUMNS)).write(file)
        return Manifest.read(file).column(name)[3]

    possible, impossible = POSSIBLE[name]
    assert [read_with(value) for value in possible] == possible
    for value in impossible:
        with pytest.raises(ManifestError, match=f"row 3: {name} = {value!r} is not possible"):
            read_with(value)


def test_hash_is_of_contents_ids_labels_splits_and_groups(audio_folder):
    manifest = scan(audio_folder, label="parent")

    def hash_with(**changes):
        rows = manifest.table.to_pylist()
        rows[0].update(changes)
        return Manifest(manifest.root, pa.Table.from_pylist(rows, CLIP_COLUMNS)).hash

    assert hash_with(path="elsewhere.wav", n_samples=1, split="train") == manifest.hash
    changes = [
        {"group": "g"},
        {"id": "x"},
        {"label": "x"},
        {"split": "test"},
        {"sha256": "0" * 64},
        {"offset": 0.1},
    ]
    hashes = {hash_with(**change) for change in changes}
    assert len(hashes | {manifest.hash}) == 7
