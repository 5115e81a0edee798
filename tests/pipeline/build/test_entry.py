import errno
import os
from inspect import signature

import pytest

import basilar as package
from basilar import Manifest, Recipe, errors
from basilar.pipeline.build import entry, luigi_engine
from basilar.pipeline.cli.make import build as command
from basilar.pipeline.compute import stages
from tests.conftest import SMALL, write_clips


@pytest.fixture(scope="module")
def result(tmp_path_factory, tracker):
    folder = tmp_path_factory.mktemp("entry")
    write_clips(folder / "audio")
    manifest = package.scan(folder / "audio", label="parent")
    return package.build(SMALL, manifest, root=folder / "root", workers=1, tracking_uri=tracker)


def test_a_build_says_what_it_came_to_and_opens_it(result):
    fs = result.open()
    assert (fs.key, fs.digest, fs.path) == (result.key, result.digest, result.path)
    assert (result.outcome, result.clips, result.quarantined) == ("built", 12, 0)
    assert repr(result) == (
        f"BuildResult: built {result.key} in {result.seconds:.1f} s\n"
        f"  12 clips, 0 quarantined, digest {result.digest[:12]}\n"
        f"  {result.path}"
    )
    with pytest.raises(AttributeError):
        result.key = "other"


def test_recipes_and_manifests_are_named_in_any_way(result, tmp_path, tracker):
    audio = result.path.parents[2] / "audio"
    (tmp_path / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    package.scan(str(audio), label="parent").write(tmp_path / "m.parquet")
    for recipe, manifest in [
        (Recipe.from_dict(SMALL), Manifest.read(tmp_path / "m.parquet")),
        (str(tmp_path / "small.toml"), str(tmp_path / "m.parquet")),
    ]:
        again = package.build(
            recipe, manifest, root=str(result.path.parents[1]), tracking_uri=tracker
        )
        assert (again.key, again.outcome) == (result.key, "cached")


def test_the_command_makes_the_same_of_the_same(result, as_json, tmp_path, monkeypatch, tracker):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    package.scan(result.path.parents[2] / "audio", label="parent").write("m.parquet")
    options = ["--root", "root", "--tracking-uri", tracker]
    code, built = as_json("build", "small.toml", "m.parquet", *options)
    assert (code, built["key"], built["digest"]) == (0, result.key, result.digest)
    assert list(built) == list(vars(result))


def test_a_build_by_numpy_says_so_once(audio_folder, tmp_path, tracker, monkeypatch, caplog):
    monkeypatch.setenv("BASILAR_KERNEL", "numpy")
    manifest = package.scan(audio_folder)
    for _ in range(2):  # the second is cached
        package.build(SMALL, manifest, root=tmp_path / "root", workers=1, tracking_uri=tracker)
    said = [record.message for record in caplog.records if "NumPy computed" in record.message]
    assert len(said) == 1


def test_the_function_has_the_commands_options_and_defaults():
    options = {name: o.default for name, o in signature(command).parameters.items()}
    of_function = {name: o.default for name, o in signature(entry.build).parameters.items()}
    assert options.keys() - of_function.keys() == {"dry_run", "explain", "as_json"}
    assert not of_function.keys() - options.keys()
    assert options.pop("keep").split(",") == list(of_function.pop("keep"))
    # Unlike an option, an argument knows "not said" from "", which is the root's own tracker.
    assert (options.pop("tracking_uri"), of_function.pop("tracking_uri")) == ("", None)
    assert {name: options[name] for name in of_function} == of_function


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--root", "r", "--keep", "nothing"], errors.UsageError, "--keep: 'nothing' names what"),
        (["--root", "r", "--engine", "dask"], errors.UsageError, "--engine dask: it does not fit"),
        (["--root", "r", "--register", "a/b"], errors.UsageError, "register: 'a/b' is no name of"),
    ],
)
def test_options_are_refused_in_the_same_words(basilar, audio_folder, options, error, message):
    names = [name.removeprefix("--") for name in options[::2]]
    with pytest.raises(error, match=message) as refused:
        package.build("log_mel", audio_folder, **dict(zip(names, options[1::2], strict=True)))
    code, _, err = basilar("build", "log_mel", audio_folder, *options, "--debug")
    assert code == 2
    assert str(refused.value) in err


@pytest.mark.parametrize(
    ("recipe", "folder", "error"),
    [
        ("log_mell", "audio", errors.RecipeError),
        ("log_mel", "nosuch", errors.ManifestError),
        ({"representation": {"kind": "mel", "n_mel": 40}}, "audio", errors.RecipeError),
    ],
)
def test_mistakes_are_explained_in_the_same_words(
    basilar, audio_folder, tmp_path, recipe, folder, error
):
    with pytest.raises(error) as refused:
        package.build(recipe, tmp_path / folder, root=tmp_path / "root")
    if isinstance(recipe, dict):
        (tmp_path / "recipe.toml").write_text('[representation]\nkind = "mel"\nn_mel = 40\n')
        recipe = tmp_path / "recipe.toml"
    code, _, err = basilar("build", recipe, tmp_path / folder, "--root", tmp_path / "r", "--debug")
    assert code == 2
    assert str(refused.value).rpartition(": ")[2] in err
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bad": 1.5}, "--max-bad: 1.5 is refused; it must be a share from 0 to 1"),
        ({"shard_seconds": 0.0}, "--shard-seconds: 0 is refused; it must be above 0"),
        ({"workers": 0}, "--workers: 0 is refused; it must be 1 or more"),
        ({"audio_root": "nosuch"}, "nosuch: no such folder; name the one that the audio is in now"),
    ],
)
def test_numbers_and_folders_that_cannot_be_are_refused(audio_folder, tmp_path, options, message):
    with pytest.raises(errors.UsageError, match=message):
        package.build("log_mel", audio_folder, root=tmp_path / "root", **options)
    assert not (tmp_path / "root").exists()


def test_a_build_that_fails_says_what_failed(audio_folder, tmp_path, tracker, capfd):
    for i in range(3):
        (audio_folder / f"broken{i}.wav").write_bytes(b"RIFF broken" + bytes([i]))
    with pytest.raises(errors.BuildFailedError) as failed:
        package.build(SMALL, audio_folder, root=tmp_path / "root", tracking_uri=tracker)
    assert capfd.readouterr() == ("", "")  # the error says it all
    (failure,) = failed.value.failures
    assert failure.startswith(f"{tmp_path / 'root'}: 3 of 15 clips cannot be used, 1 ")
    assert str(failed.value).startswith(f"{tmp_path / 'root'}: the build of ")
    assert "  broken0.wav" in str(failed.value)


def test_a_lack_of_space_is_in_the_error_and_printed_by_the_command_alone(
    audio_folder, tmp_path, tracker, monkeypatch, basilar, capsys
):
    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a file")

    monkeypatch.setattr(stages, "represent", fail)
    monkeypatch.setattr(luigi_engine, "disk_bytes", lambda *_: {"all": 2**60})
    options = {"root": tmp_path / "root", "tracking_uri": tracker, "workers": 1}
    with pytest.raises(errors.BuildFailedError, match="are free, and the rest of the") as failed:
        package.build(SMALL, audio_folder, **options)
    assert capsys.readouterr() == ("", "")
    assert len(failed.value.failures) == 2
    (tmp_path / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    named = ("--root", tmp_path / "other", "--tracking-uri", tracker, "--workers", 1)
    code, _, err = basilar("build", tmp_path / "small.toml", audio_folder, *named)
    assert code == 1
    assert "a file" in err, ascii(err)
    assert err.count("are free, and the rest of the build needs") == 1, err


def test_the_environment_names_the_tracker(monkeypatch, audio_folder, tmp_path):
    said = {**dict.fromkeys(("register", "scheduler", "dask"), ""), "engine": "local"}
    numbers = {"shard_seconds": 1.0, "max_bad": 0.0, "clip_timeout": 1.0}
    named = {"root": tmp_path / "root", "audio_root": None, "keep": (), **said, **numbers}
    manifest = package.scan(audio_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    planned = entry.prepare(SMALL, manifest, tracking_uri=None, **named)
    assert planned.tracking_uri == "http://127.0.0.1:9"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    planned = entry.prepare(SMALL, manifest, tracking_uri=None, **named)
    assert planned.tracking_uri == f"sqlite:///{tmp_path / 'root' / 'mlflow' / 'mlflow.db'}"
