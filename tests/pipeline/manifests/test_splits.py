import json
import shutil

import pytest
import soundfile as sf

from basilar.pipeline.errors import ManifestError
from basilar.pipeline.manifests.scan import scan
from tests.conftest import make_noise


def test_labels_and_groups_from_paths(audio_folder):
    manifest = scan(audio_folder, label="parent", group=r"(\d)\.wav")
    assert manifest.column("label")[:4] == ["a"] * 4
    assert manifest.column("group")[:2] == ["0", "3"]
    manifest = scan(audio_folder, label=r"(?P<group>\d)(?P<label>\d)\.wav")
    assert manifest.column("label")[:2] == ["0", "3"]


def test_splits_by_share_keep_groups_together_and_do_not_depend_on_other_clips(corpora):
    folder = corpora / "speech" / "fsdd"
    by_file = scan(folder, split={"train": 0.8, "valid": 0.1, "test": 0.1})
    counts = {name: by_file.splits.count(name) for name in ("train", "valid", "test")}
    # 1,000 draws: 3 standard deviations of a share of 0.8 are 38 clips, of 0.1 28.
    assert abs(counts["train"] - 800) < 38
    assert abs(counts["valid"] - 100) < 28
    assert sum(counts.values()) == 1000
    by_speaker = scan(folder, group="_([a-z]+)_", split={"train": 0.5, "test": 0.5})
    pairs = set(zip(by_speaker.column("group"), by_speaker.splits, strict=True))
    assert len(pairs) == 4


def test_no_content_is_on_both_sides_of_a_split_nor_moved_by_its_name(tmp_path):
    shares, lines = {"train": 0.5, "test": 0.5}, []
    for seed in range(8):
        sf.write(tmp_path / f"{seed}.wav", make_noise(800, seed), 8000, subtype="PCM_16")
        shutil.copy(tmp_path / f"{seed}.wav", tmp_path / f"copy of {seed}.wav")
        lines += [{"path": f"{seed}.wav", "offset": part / 100} for part in range(4)]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    excerpts = scan(tmp_path / "clips.jsonl", split=shares)
    (tmp_path / "clips.jsonl").unlink()
    files = scan(tmp_path, split=shares)
    (tmp_path / "0.wav").rename(tmp_path / "renamed.wav")
    renamed = scan(tmp_path, split=shares)
    split_of = dict(zip(files.column("sha256"), files.splits, strict=True))
    assert len(split_of) == 8
    assert set(split_of.values()) == {"train", "test"}
    for manifest in (excerpts, files, renamed):
        assert [split_of[sha256] for sha256 in manifest.column("sha256")] == manifest.splits


def test_adding_a_file_moves_no_other_to_another_split(audio_folder, noise):
    shares = {"train": 0.5, "test": 0.5}
    before = scan(audio_folder, split=shares)
    sf.write(audio_folder / "new.wav", noise(4000, 99), 8000)
    after = scan(audio_folder, split=shares)
    kept = dict(zip(after.column("id"), after.splits, strict=True))
    assert [kept[i] for i in before.column("id")] == before.splits


def test_splits_from_a_table(audio_folder, tmp_path):
    table = tmp_path / "splits.csv"
    ids = scan(audio_folder).column("id")
    table.write_text("id,split\n" + "".join(f"{i},{'ab'[n % 2]}\n" for n, i in enumerate(ids)))
    assert scan(audio_folder, split=table).splits == ["a", "b"] * 6
    table.write_text("id,split\na/00.wav,a\n")
    with pytest.raises(
        ManifestError, match=r"splits\.csv: no split for 11 clips, first 'a/03.wav'"
    ):
        scan(audio_folder, split=table)
    table.write_text("clip,split\nx,y\n")
    with pytest.raises(ManifestError, match="must have the columns id and split"):
        scan(audio_folder, split=table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "("}, r"--label: '\(' is not a regular expression"),
        ({"label": "x"}, "must be 'parent' or a regular expression with a group"),
        ({"label": "(?P<label>zzz)"}, "does not match the path 'a/00.wav'"),
        ({"split": {"train": 0.5}}, "the shares sum to 0.5; they must not be negative"),
        ({"split": {"train": 1.5, "test": -0.5}}, "must not be negative"),
        ({"split": {"train": float("nan"), "test": 0.1}}, "must not be negative"),
    ],
)
def test_wrong_options_are_refused(audio_folder, options, message):
    with pytest.raises(ManifestError, match=message):
        scan(audio_folder, **options)
