from basilar.pipeline.errors import DamagedArtifactError
from basilar.pipeline.storage import checksums


def test_checksums_of_files(tmp_path):
    folder = tmp_path / "set"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_bytes(b"123456789")
    (folder / "inner" / "b").write_bytes(b"")
    checksums.write_checksums(folder, known={"inner/c": (5, 7)})
    expected = {"a": (9, 0xCBF43926), "inner/b": (0, 0), "inner/c": (5, 7)}
    assert checksums.read_checksums(folder) == expected


def test_one_flipped_bit_in_the_checksums_is_found(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    checksums.write_checksums(tmp_path)
    file = tmp_path / checksums.CHECKSUMS
    written = file.read_bytes()
    found = 0
    for i in range(len(written)):
        for bit in range(8):
            changed = bytearray(written)
            changed[i] ^= 1 << bit
            file.write_bytes(changed)
            try:
                assert checksums.read_checksums(tmp_path) == {"a": (9, 0xCBF43926)}
            except DamagedArtifactError:
                found += 1
    # What is left are spaces and line ends, which stand for one another.
    assert found > 8 * len(b"".join(written.split()))
