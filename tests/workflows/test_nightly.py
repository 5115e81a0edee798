import json
import subprocess
import sys
from collections import Counter

import fsspec
import luigi
import pytest
import soundfile as sf

from basilar import FeatureSet
from basilar.pipeline.build import registry
from basilar.pipeline.build.shard_tasks import new_attempt
from basilar.pipeline.compute import stages
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import locks
from basilar.pipeline.storage.files import read_json
from basilar.workflows.build_feature_set import BuildFeatureSet
from basilar.workflows.nightly import Nightly
from tests.conftest import REPOSITORY, SMALL


@pytest.fixture
def params(tmp_path):
    """Three recipes: all decode alike, and two of them resample alike."""
    folder = tmp_path / "params"
    folder.mkdir()
    for name, rate, bands in (("a", 8000, 8), ("b", 8000, 12), ("c", 4000, 8)):
        kind = {**SMALL["representation"], "n_mels": bands}
        table = {**SMALL, "resample": {"sample_rate": rate}, "representation": kind}
        (folder / f"{name}.toml").write_text(Recipe.from_dict(table).to_toml())
    return folder


@pytest.fixture
def night(audio_folder, tmp_path, monkeypatch, tracker):
    """One night in this process: whether Luigi is content."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker)
    root = tmp_path / "root"

    def run(*recipes, workers=1):
        new_attempt()
        luigi.task_register.Register.clear_instance_cache()  # the folder is scanned again
        task = Nightly(audio=audio_folder, recipes=",".join(map(str, recipes)), root=root)
        try:
            return luigi.build([task], workers=workers, local_scheduler=True)
        finally:
            registry.end(root)

    with locks.session(root):
        yield run


@pytest.fixture
def computed(monkeypatch):
    """How often each stage computed each shard, by the contents of the shard."""
    counts = Counter()

    def counted(stage, contents):
        original = getattr(stages, stage)

        def function(shard, *arguments, **options):
            counts[stage, contents(shard)] += 1
            return original(shard, *arguments, **options)

        monkeypatch.setattr(stages, stage, function)

    counted("decode", lambda sources: tuple(source.content for source in sources))
    counted("resample", lambda waveforms: tuple(waveforms.contents))
    counted("represent", lambda waveforms: tuple(waveforms.contents))
    return counts


def latest(tmp_path):
    return {file.stem: read_json(file) for file in (tmp_path / "root" / "latest").glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("abc", {"decode": {1}, "resample": {2}, "represent": {3}}),
        pytest.param(  # resampled on the way
            *("ab", {"decode": {1}, "represent": {2}}), marks=pytest.mark.torture
        ),
    ],
)
def test_what_recipes_share_is_computed_once(
    night, computed, params, tmp_path, monkeypatch, names, expected
):
    monkeypatch.setattr("basilar.workflows.build_feature_set.SHARD_SECONDS", 1.0)
    assert night(*(params / f"{name}.toml" for name in names))
    times = {stage: {n for (s, _), n in computed.items() if s == stage} for stage, _ in computed}
    assert times == expected
    assert (tmp_path / "root" / "artifacts" / "decode").exists() == ("resample" in expected)
    assert not list((tmp_path / "root" / "running").iterdir())
    pointers = latest(tmp_path)
    for name, pointer in pointers.items():
        fs = FeatureSet.open(tmp_path / "root" / "latest" / f"{name}.json")
        assert (fs.key, fs.digest) == (pointer["key"], pointer["digest"])
    assert len({pointer["key"] for pointer in pointers.values()}) == len(names)


@pytest.mark.slow
def test_a_night_without_news_changes_nothing_and_one_with_news_points_to_it(
    night, computed, params, tmp_path, audio_folder, noise
):
    assert night(params / "a.toml")
    first, before = latest(tmp_path), sum(computed.values())
    assert night(params / "a.toml")
    assert (latest(tmp_path), sum(computed.values())) == (first, before)
    sf.write(audio_folder / "new.wav", noise(4000, 77), 8000, subtype="PCM_16")
    assert night(params / "a.toml")
    fs = FeatureSet.open(tmp_path / "root" / "latest" / "a.json")
    assert len(fs) == 13
    assert fs.key != first["a"]["key"]


def test_root_and_audio_may_be_urls(audio_folder, params, monkeypatch, tracker):
    store = fsspec.filesystem("memory")
    for file in audio_folder.rglob("*.wav"):
        store.pipe_file(f"/night/audio/{file.relative_to(audio_folder)}", file.read_bytes())
    monkeypatch.setattr(BuildFeatureSet.tracking_uri, "_default", tracker)
    where = {"audio": "memory://night/audio", "root": "memory://night/root"}
    pointer = "/night/root/latest/a.json"

    def run():
        luigi.task_register.Register.clear_instance_cache()
        task = Nightly(recipes=str(params / "a.toml"), **where)
        assert luigi.build([task], workers=1, local_scheduler=True)
        return store.cat_file(pointer)

    try:
        first = run()
        fs = FeatureSet.open(f"memory:/{pointer}")
        assert (len(fs), fs.key) == (12, json.loads(first)["key"])
        assert run() == first
        moved = {**json.loads(first), "key": 32 * "0"}  # by another machine
        store.pipe_file(pointer, json.dumps(moved).encode())
        assert json.loads(run())["key"] == fs.key
    finally:
        store.rm("/night", recursive=True)


@pytest.mark.slow
def test_a_recipe_that_fails_stops_no_other(night, params, tmp_path):
    assert night(params / "a.toml")
    before = latest(tmp_path)
    (params / "a.toml").write_text("[representation]\nkind = 'none of them'\n")
    table = {**SMALL, "decode": {"max_seconds": 0.4}}  # planned, and then too many bad clips
    (params / "c.toml").write_text(Recipe.from_dict(table).to_toml())
    assert not night(*(params / f"{name}.toml" for name in "abc"))
    assert latest(tmp_path)["a"] == before["a"]
    assert set(latest(tmp_path)) == {"a", "b"}


def test_pointers_of_one_name_are_refused(params, tmp_path):
    both = f"{params / 'a.toml'},{tmp_path / 'a.toml'}"
    with pytest.raises(ValueError, match="two files have one name"):
        Nightly(audio=tmp_path, recipes=both, root=tmp_path).requires()


def test_the_command_exits_with_1_if_a_recipe_failed(audio_folder, params, tmp_path):
    (params / "a.toml").write_text("[representation]\nkind = 'none of them'\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "luigi", "--module", "basilar.workflows.nightly", "Nightly"),
            *("--audio", audio_folder, "--recipes", params / "a.toml", "--root", tmp_path / "r"),
            "--local-scheduler",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 1
