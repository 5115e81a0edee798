"""Change one thing anywhere, and the right command says so, names it, and does not exit with 0."""

import os
import shutil

import numpy as np
import pytest
import soundfile as sf

from basilar.dsp import framing, mel, stft
from basilar.dsp.kernel import Bank
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.records.record import find_record
from basilar.pipeline.training.feature_set import FeatureSet
from tests.conftest import SMALL
from tests.damage import edit_json, edit_table, flip, seal, store_of

# Every value of a log-mel recipe, each with another.
RECIPE = {
    "name": "smell",
    "decode.channels": "first",
    "decode.max_seconds": 3600.0,
    "decode.max_channels": 32,
    "decode.max_mib": 1024,
    "resample.sample_rate": 8001,
    "resample.method": "polyphase",
    "resample.quality": "high",
    "representation.log": "ln",
    "representation.gain": 1.1,
    "representation.floor": 2e-10,
    "representation.floor_mode": "add",
    "representation.top_db": 81.0,
    "representation.reference": 1.1,
    "representation.shift": 0.1,
    "representation.factor": 1.1,
    "representation.subtract_mean": True,
    "representation.n_fft": 257,
    "representation.hop_length": 65,
    "representation.win_length": 255,
    "representation.window": "hamming",
    "representation.periodic": False,
    "representation.align": "left",
    "representation.center": False,
    "representation.pad_mode": "edge",
    "representation.drop_last": True,
    "representation.scale": 1.1,
    "representation.dither": 0.1,
    "representation.remove_dc": True,
    "representation.preemphasis": 0.1,
    "representation.n_mels": 9,
    "representation.fmin": 0.1,
    "representation.fmax": 3999.0,
    "representation.mel_scale": "htk",
    "representation.filter_norm": "none",
    "representation.power": 1,
    "representation.dtype": "float16",
    "normalization.kind": "min_max",
    "normalization.per": "global",
    "normalization.split": "test",
    "store.codec": "compact",
    "store.chunk_kib": 2,
    "store.shard_mib": 2,
}
# Every file of the store.
STATISTICS = ("centre", "edges", "max", "mean", "min", "scale", "std")
FILES = [
    *("zarr.json", "files.json", "clips.parquet", "quarantine.parquet"),
    *("features/zarr.json", *(f"features/c/{i}/0" for i in range(4))),
    *(f"{name}/{file}" for name in ("start", "n_frames") for file in ("zarr.json", "c/0")),
    *("moments/zarr.json", "stats/zarr.json", "stats/histogram/zarr.json"),
    *(f"moments/{name}/zarr.json" for name in ("sum", "sum_squares", "min", "max")),
    *(f"moments/{name}/c/0/0" for name in ("sum", "sum_squares", "min", "max")),
    *(f"stats/{name}/{file}" for name in STATISTICS for file in ("zarr.json", "c/0")),
    "stats/histogram/c/0/0",
]


def flat(recipe):
    return {
        f"{section}.{name}" if name else section: value
        for section, values in recipe.resolved().items()
        for name, value in (values.items() if isinstance(values, dict) else [("", values)])
    }


@pytest.fixture
def key(built):
    return built.plan.key


@pytest.fixture
def audio(built, tmp_path):
    """A copy of the audio, to change."""
    return shutil.copytree(built.plan.manifest.root, tmp_path / "audio")


def test_no_value_of_the_recipe_and_no_file_of_the_store_is_forgotten(built):
    only = {"schema_version", "representation.kind"}  # have no other value
    assert set(RECIPE) == set(flat(built.plan.recipe)) - only
    files = {f.relative_to(built.store).as_posix() for f in built.store.rglob("*") if f.is_file()}
    assert set(FILES) == files


@pytest.mark.parametrize("field", RECIPE)
def test_one_value_of_the_recipe(as_json, built, key, tmp_path, field):
    table = built.plan.recipe.resolved()
    section, _, name = field.partition(".")
    if name:
        table[section][name] = RECIPE[field]
        table["representation"].pop("win_length" if name == "n_fft" else "", None)
    else:
        table[section] = RECIPE[field]
    mutated = Recipe.from_dict(table)
    (tmp_path / "mutated.toml").write_text(mutated.to_toml())
    code, found = as_json("why", key, tmp_path / "mutated.toml", "--root", built.root)
    part = "unhashed" if section in ("name", "store") else "recipe"
    assert code == 1
    assert found[part].pop(field) == [flat(built.plan.recipe)[field], RECIPE[field]]
    derived = {"representation.win_length"} if name == "n_fft" else set()
    assert found[part].keys() == derived
    same = Plan(mutated, built.plan.manifest).key == key
    assert same == (part == "unhashed")


@pytest.mark.parametrize("name", FILES)
def test_one_bit_of_a_file_of_the_store(as_json, root, key, name):
    flip(store_of(root) / name, 0.4, bit=2)
    code, found = as_json("verify", key, "--root", root, "--workers", 1)
    assert (code, found["sound"]) == (1, False)
    assert str(store_of(root) / name) in {p["file"] for p in found["problems"]}


@pytest.mark.parametrize("name", ["files.json", "moments/min/c/0/0", "clips.parquet", "zarr.json"])
def test_one_bit_of_a_shard(as_json, root, key, name):
    folder = sorted((root / "artifacts" / "representation").iterdir())[2]
    flip(folder / name)
    code, found = as_json("verify", key, "--root", root)
    assert (code, [p["file"] for p in found["problems"]]) == (1, [str(folder / name)])


@pytest.mark.parametrize("pattern", ["features/*.json", "recipes/*.json", "manifests/*.parquet"])
def test_one_bit_of_the_catalogue(as_json, root, key, pattern):
    (file,) = (root / "catalogue").glob(pattern)
    flip(file, 0.02 if file.suffix == ".parquet" else 0.5)
    code, found = as_json("verify", key, "--root", root)
    assert code == 1
    assert any(str(file) in p["file"] + p["problem"] for p in found["problems"])


@pytest.mark.parametrize("how", ["label", "split", "id"])
def test_one_cell_of_the_table_of_clips_with_all_checksums_made_to_fit(as_json, root, key, how):
    file = store_of(root) / "clips.parquet"
    edit_table(file, how, 5, "mutated")
    (copy,) = (root / "catalogue" / "features").glob("*.parquet")
    shutil.copy(file, copy)
    seal(store_of(root))
    code, found = as_json("verify", key, "--root", root)
    assert code == 1
    assert (found["problems"][0]["file"], "'mutated'" in found["problems"][0]["problem"]) == (
        str(file),
        True,
    )


def test_one_value_of_the_features_with_all_checksums_made_to_fit(as_json, root, key):
    clip = FeatureSet.open(store_of(root)).clips.iloc[0]
    flip(store_of(root) / "features" / "c" / "0" / "0", 0.0)
    for folder in (store_of(root), *(root / "artifacts" / "representation").iterdir()):
        seal(folder)
    code, found = as_json("verify", key, "--root", root)
    assert code == 1
    assert clip["id"] in found["problems"][0]["problem"]


def change_sample(file, place=100):
    y, rate = sf.read(file, dtype="int16")
    y[place] += 1
    sf.write(file, y, rate, subtype="PCM_16")


@pytest.mark.parametrize("clip_id", ["a/03.wav", "b/04.wav", "c/11.wav"])
def test_one_sample_of_one_file(as_json, built, key, audio, tmp_path, clip_id):
    change_sample(audio / clip_id)
    options = ("--root", built.root, "--audio-root", audio)
    code, found = as_json("reproduce", key, *options)
    assert (code, found["verdict"], found["changed"]) == (1, "different", [clip_id])
    code, found = as_json("verify", key, *options, "--sample", 99)
    assert code == 1
    assert f"{clip_id}: its file has changed" in found["problems"][0]["problem"]
    scan(audio, label="parent").write(tmp_path / "m.parquet")
    code, found = as_json("why", key, tmp_path / "m.parquet", "--root", built.root)
    assert code == 1
    assert [clip["id"] for clip in found["clips"]["changed"]["clips"]] == [clip_id]


def test_one_sample_of_a_file_whose_size_and_date_are_restored(as_json, built, key, audio):
    file = audio / "b" / "04.wav"
    for each in audio.rglob("*.wav"):
        os.utime(each, (1e9, 1e9))
    scan(audio)  # what is remembered of the files must not hide it
    changed = file.with_name("changed.wav")
    shutil.copy(file, changed)
    change_sample(changed)
    with file.open("r+b") as opened:
        opened.write(changed.read_bytes())
    os.utime(file, (1e9, 1e9))
    changed.unlink()
    options = ("--root", built.root, "--audio-root", audio, "--workers", 1)
    code, found = as_json("reproduce", key, *options)
    assert (code, found["verdict"], found["changed"]) == (1, "different", ["b/04.wav"])
    code, found = as_json("verify", key, *options, "--sample", 99)
    assert code == 1
    assert "b/04.wav: its file has changed" in found["problems"][0]["problem"]


def test_one_file_less(as_json, built, key, audio):
    (audio / "b" / "07.wav").unlink()
    code, found = as_json("reproduce", key, "--root", built.root, "--audio-root", audio)
    assert (code, found["missing"], found["changed"]) == (1, ["b/07.wav"], [])


def test_files_of_other_names_are_the_same(as_json, built, key, audio):
    for file in sorted(audio.rglob("*.wav")):
        file.rename(audio / f"{file.parent.name}-{file.name}")
    arguments = ("reproduce", key, "--root", built.root, "--audio-root", audio, "--workers", 1)
    code, found = as_json(*arguments)
    assert (code, found["verdict"], found["found_elsewhere"]) == (0, "identical", 13)


CLIPS = {
    "relabelled": lambda clip: clip.update(label="mutated"),
    "other_split": lambda clip: clip.update(split="mutated"),
    "other_group": lambda clip: clip.update(group="mutated"),
    "renamed": lambda clip: clip.update(id="mutated"),
    "changed": lambda clip: clip.update(sha256="0" * 64),
    "removed": lambda clip: clip.clear(),
}


@pytest.mark.parametrize("what", CLIPS)
def test_one_clip_of_the_manifest(as_json, built, key, tmp_path, what):
    manifest = built.plan.manifest
    rows = manifest.table.to_pylist()
    clip_id = rows[5]["id"]
    CLIPS[what](rows[5])
    table = manifest.table.from_pylist(
        sorted(filter(None, rows), key=lambda row: row["id"]), manifest.table.schema
    )
    mutated = type(manifest)(manifest.root, table)
    mutated.write(tmp_path / "m.parquet")
    code, found = as_json("why", key, tmp_path / "m.parquet", "--root", built.root)
    assert code == 1
    assert found["clips"].keys() == {what}
    assert [clip["id"] for clip in found["clips"][what]["clips"]] == [clip_id]
    assert Plan(built.plan.recipe, mutated).key != key
    if what in ("relabelled", "renamed"):
        build = Build(
            root=tmp_path / "root", plan=Plan(built.plan.recipe, mutated), tracking_uri=""
        )
        assert luigi_engine.run(build, workers=1, log=False).succeeded
        assert FeatureSet.open(build.store).digest == FeatureSet.open(built.store).digest


def mutate_window(monkeypatch, by):
    original = framing.window

    def window(*arguments, **options):
        table = original(*arguments, **options).copy()
        table[len(table) // 3] *= np.float32(1 + by)
        return table

    monkeypatch.setattr(framing, "window", window)
    monkeypatch.setattr(stft, "_program", stft._program.__wrapped__)  # a cached one has its window


def mutate_filters(monkeypatch, by):
    original = mel._filters

    def filters(*arguments):
        matrix = original(*arguments).toarray()
        weights = np.argwhere(matrix)
        matrix[tuple(weights[len(weights) // 2])] *= np.float32(1 + by)
        return Bank.of(matrix)

    monkeypatch.setattr(mel, "_filters", filters)


@pytest.mark.parametrize("mutate", [mutate_window, mutate_filters])
def test_one_weight_of_a_table(as_json, built, key, monkeypatch, mutate):
    options = ("--root", built.root, "--workers", 1)
    mutate(monkeypatch, 0.5)
    code, found = as_json("verify", key, *options, "--sample", 3)
    assert code == 1
    assert all("from the stage representation on" in p["problem"] for p in found["problems"])
    code, found = as_json("reproduce", key, *options)
    assert (code, found["verdict"]) == (1, "different")
    assert {clip["stage"] for clip in found["differing"]} == {"representation"}
    monkeypatch.undo()


@pytest.mark.parametrize("mutate", [mutate_window, mutate_filters])
def test_one_weight_changed_in_its_last_digits(as_json, built, key, monkeypatch, mutate):
    mutate(monkeypatch, 1e-5)
    code, found = as_json("reproduce", key, "--root", built.root, "--workers", 1)
    assert (code, found["verdict"]) == (3, "within_tolerance")
    assert 0 < found["largest"] < 1e-4


def test_one_value_of_another_set(as_json, root, built, key, monkeypatch):
    mutate_window(monkeypatch, 0.5)
    table = built.plan.recipe.resolved()
    table["representation"]["floor"] = 2e-10  # so that it has another key
    plan = Plan(Recipe.from_dict(table), built.plan.manifest)
    assert luigi_engine.run(
        Build(root=root, plan=plan, tracking_uri=""), workers=1, log=False
    ).succeeded
    code, found = as_json("diff", key, plan.key, "--root", root)
    assert (code, found["equal"]) == (1, False)
    assert max(found["largest"]) > 0


CATALOGUE = {
    "recipe": lambda v: v["recipe"]["representation"].update(hop_length=65),
    "digit of the key": lambda v: v.update(key="0" + v["key"][1:-1] + "x"),
    "manifest": lambda v: v.update(manifest_hash="0" * 32),
    "op version": lambda v: v["op_versions"].update(decode=7),
    "decoders": lambda v: v.update(decoders=["libsndfile 0"]),
}


@pytest.mark.parametrize("what", CATALOGUE)
def test_one_value_of_the_only_record(as_json, root, key, what):
    shutil.rmtree(root / "features")
    edit_json(root / "catalogue" / "features" / f"{key}.json", CATALOGUE[what])
    code, found = as_json("reproduce", key, "--root", root)
    assert code == 1
    assert str(root / "catalogue") in found["error"]


def test_the_digest_of_the_only_record(as_json, root, key):
    shutil.rmtree(root / "features")
    file = root / "catalogue" / "features" / f"{key}.json"
    edit_json(file, lambda v: v.update(digest="0" * 32))
    code, found = as_json("reproduce", key, "--root", root, "--workers", 1)
    assert (code, found["verdict"], found["digest"]) == (1, "different", "0" * 32)
    assert found["differing_clips"] == 0  # every clip is what it was: the record is wrong


def test_a_sound_set_is_found_sound(as_json, root, key):
    """What the mutations above start from."""
    assert as_json("verify", key, "--root", root, "--sample", 99)[0] == 0
    assert as_json("reproduce", key, "--root", root, "--workers", 1)[0] == 0
    assert find_record(root, key).source == "store"
    assert Recipe.from_dict(SMALL) == find_record(root, key).recipe
