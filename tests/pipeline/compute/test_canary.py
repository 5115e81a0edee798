import json
import logging
import time

import numpy as np
import pytest

from basilar import FeatureSet
from basilar.dsp import compress, framing, mel, representations, stft
from basilar.dsp import resample as resampling
from basilar.dsp.kernel import Bank
from basilar.pipeline import audio, cli
from basilar.pipeline.audio import decoders, decoding
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build, build_of
from basilar.pipeline.build.shard_tasks import Decode, Represent, Resample
from basilar.pipeline.compute import canary
from basilar.pipeline.compute import guard as guarding
from basilar.pipeline.compute.canary import Canary
from basilar.pipeline.compute.guard import guard
from basilar.pipeline.compute.here import plan_here
from basilar.pipeline.errors import CanaryError
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.recipes.recipe import Recipe
from tests.pipeline.store.test_publish import LOG_MEL, recipe_of


@pytest.fixture(autouse=True)
def forget():
    """What this process found out before a function was patched, or after."""
    clear_caches()
    yield
    clear_caches()


def clear_caches():
    stft._program.cache_clear()  # its windows and filters
    canary.check.cache_clear()
    canary.made.cache_clear()
    guarding._keep.cache_clear()
    guarding._since_kept.cache_clear()


@pytest.fixture
def planned(audio_folder, tmp_path, tracker):
    """A build of log-mels, by default of power 2, under a root that is not there yet."""

    def make(**representation):
        root = tmp_path / "root"
        recipe = recipe_of({**LOG_MEL, **representation})
        plan = plan_here(recipe, scan(audio_folder), 2.0, root=root)
        return Build(root=root, plan=plan, tracking_uri=tracker)

    return make


def changing(function, change):
    """A function that does what another does, and then changes the result."""
    return lambda *arguments, **options: change(function(*arguments, **options))


def one_weight(x):
    """The largest value of an array, or of a bank of filters, a fifth larger."""
    changed = x.toarray() if isinstance(x, Bank) else x.copy()
    values = changed.reshape(-1)
    values[np.argmax(values)] *= 1.2
    return Bank.of(changed) if isinstance(x, Bank) else changed


def an_ulp_more(x):
    """Every third value an ulp larger."""
    changed = np.array(x)
    changed[::3] = np.nextafter(changed[::3], np.float32(np.inf))
    return changed


RESAMPLE = "resample sinc_kaiser"
PATCHES = {  # what is patched, and what the guard says of it
    "window": (framing, "window", one_weight, "representation log_mel"),
    "filter bank": (mel.MelBank, "filters", one_weight, "representation log_mel"),
    "logarithm": (compress.Log, "of_clip", lambda x: x + 0.1, "representation log_mel"),
    "resampler": (resampling._Filtered, "resample_chunk", lambda y: np.roll(y, 1), RESAMPLE),
    "decoder": (decoders.SoundFile, "read", lambda block: block[::-1], "decode wav"),
    "mix": (audio, "_mix", None, "decode wav"),
}


def patch(monkeypatch, name, change=None):
    where, function, ordinary, _ = PATCHES[name]
    clear_caches()
    if name == "mix":
        monkeypatch.setattr(decoding, "_mix", lambda block, _, *, out: np.copyto(out, block[:, 0]))
        return
    original = getattr(where, function)
    monkeypatch.setattr(where, function, changing(original, change or ordinary))


def test_numbers_change_only_with_their_version():
    stored, now = json.loads(canary.FILE.read_text())["canaries"], canary.make_entries()
    again = "raise its version and run `python -m basilar.pipeline.compute.canary --write`"
    assert now.keys() == stored.keys(), (
        "a kind came or went: python -m basilar.pipeline.compute.canary --write"
    )
    for name, entry in now.items():
        same = entry["sha256"] == stored[name]["sha256"]
        if entry["version"] == stored[name]["version"]:
            assert same, f"{name} computes other numbers under the same version: {again}"
            assert entry == stored[name]
        else:
            assert not same, f"{name} has a new version and the same numbers"


@pytest.mark.parametrize("name", PATCHES)
def test_an_installation_that_computes_something_else_writes_nothing(planned, monkeypatch, name):
    build = planned()
    patch(monkeypatch, name)
    stage = PATCHES[name][-1]
    with pytest.raises(CanaryError, match=f"^{stage}: .* when it was released, by"):
        build.register()
    assert not build.root.exists()


def test_what_is_said_of_a_difference(planned, monkeypatch):
    patch(monkeypatch, "filter bank")
    monkeypatch.setattr(canary, "version", lambda name: "1.2.3")
    with pytest.raises(CanaryError) as refused:
        planned().register()
    numpy = json.loads(canary.FILE.read_text())["versions"]["numpy"]
    assert f"numpy 1.2.3 (then {numpy}), soxr 1.2.3 (then" in str(refused.value)
    assert "of their range, where 1e-04 is allowed" in str(refused.value)
    assert "nothing was computed; install those versions, or find what was patched" in str(
        refused.value
    )


def test_a_tiny_difference_is_a_warning_that_the_store_keeps(planned, monkeypatch, caplog):
    patch(monkeypatch, "window", an_ulp_more)
    build = planned()
    with caplog.at_level(logging.WARNING, "basilar"):
        assert luigi_engine.run(build, workers=1).succeeded
    warnings = FeatureSet.open(build.store).attributes["canary"]
    assert len(warnings) == 1
    assert warnings[0].startswith("representation log_mel: it computes other numbers than when it")
    assert warnings[0] in [record.getMessage() for record in caplog.records]


def test_a_usual_build_has_nothing_to_warn_of(planned):
    build = planned()
    assert luigi_engine.run(build, workers=1).succeeded
    assert FeatureSet.open(build.store).attributes["canary"] == []


def test_a_root_remembers_what_a_recipe_computed(planned, monkeypatch):
    """A function that no default reaches: magnitudes, where the canary is of powers."""
    build = planned(power=1)
    build.register()
    file = build.root / "catalogue" / "canaries" / f"{build.plan.hashes['normalization']}.json"
    assert json.loads(file.read_text())["canaries"].keys() == {
        RESAMPLE,
        "representation log_mel",
    }
    clear_caches()
    assert build.guard() == []
    monkeypatch.setitem(representations._OUTPUT, 1, "power")
    clear_caches()
    assert guard(build.plan.recipe) == []
    before = sorted(build.root.rglob("*"))
    with pytest.raises(CanaryError, match=r"representation log_mel: .* first build of this recipe"):
        build.register()
    assert sorted(build.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("task", "name"), [(Decode, "decoder"), (Resample, "resampler"), (Represent, "window")]
)
def test_workers_elsewhere_are_guarded_too(planned, monkeypatch, task, name):
    text = planned().register()
    patch(monkeypatch, name)
    the_task = task.of(text, build_of(text).plan.shards[0])
    with pytest.raises(CanaryError, match=PATCHES[name][-1]):
        the_task.run()
    assert not the_task.path().exists()


def test_a_cached_rerun_is_guarded(planned, monkeypatch):
    build = planned()
    assert luigi_engine.run(build, workers=1).succeeded
    patch(monkeypatch, "window")
    with pytest.raises(CanaryError, match="representation log_mel"):
        luigi_engine.run(build, workers=1)


def test_only_the_decoders_of_the_data_are_asked(planned, monkeypatch):
    asked = []
    monkeypatch.setattr(canary, "check", lambda name: asked.append(name) or "")
    planned().guard()
    assert list(dict.fromkeys(asked)) == [
        *(f"decode {codec}" for codec in ("wav", "flac", "mp3", "ogg")),
        RESAMPLE,
        "representation log_mel",
    ]


def test_frames_that_are_conditioned_have_a_canary(monkeypatch):
    recipe = recipe_of({**LOG_MEL, "preemphasis": 0.97})
    monkeypatch.setitem(canary.CONDITIONED, "preemphasis", 0.96)
    with pytest.raises(CanaryError, match="representation conditioned"):
        guard(recipe)


def test_dither_has_a_canary(monkeypatch):
    recipe = recipe_of({**LOG_MEL, "dither": 1.0, "scale": 32768.0})
    assert guard(recipe) == []
    clear_caches()
    monkeypatch.setitem(canary.DITHERED, "dither", 0.5)
    with pytest.raises(CanaryError, match="representation dithered"):
        guard(recipe)


def test_the_guard_takes_no_time():
    recipe = recipe_of(LOG_MEL)
    guard(recipe, decoders=["soundfile"])
    spent = []
    for _ in range(5):
        clear_caches()
        started = time.process_time()
        guard(recipe, decoders=["soundfile"])
        spent.append(time.process_time() - started)
    assert min(spent) < 0.05
    started = time.process_time()
    guard(recipe, decoders=["soundfile"])
    assert time.process_time() - started < 0.005


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_a_change_of_any_value_shows(dtype):
    values = np.random.default_rng(0).standard_normal((44, 128)).astype(dtype)
    then = Canary.of(values)
    for place in [(0, 0), (17, 77), (43, 127)]:
        changed = values.copy()
        changed[place] += 1
        assert Canary.of(changed).difference(then) > 0.001
        assert Canary.of(changed).sha256 != then.sha256
    assert Canary.of(values).difference(then) == 0
    assert Canary.from_json(then.to_json()).difference(then) == 0
    values[3, 5] = np.nan
    assert Canary.of(values).difference(then) == np.inf


@pytest.mark.parametrize(
    ("sample_rate", "representation"),
    [
        (22050, {"kind": "stft", "n_fft": 131072, "center": False}),
        (22050, {"kind": "mfcc", "n_deltas": 2, "hop_length": 20000}),
        (11025, {"kind": "log_cqt"}),
        (8001, {"kind": "waveform", "dtype": "float16"}),
    ],
)
def test_every_recipe_makes_something_of_the_canary(sample_rate, representation, tmp_path):
    sections = {"resample": {"sample_rate": sample_rate}, "representation": representation}
    recipe = Recipe.from_dict(sections)
    for _ in range(2):
        assert guard(recipe, catalogue=tmp_path) == []
        clear_caches()


def test_comparing_everything_by_hand(capsys, monkeypatch):
    assert canary.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(list(canary.names()))
    assert all(line.endswith("identical") for line in said)
    patch(monkeypatch, "resampler")
    assert canary.main([]) == 1
    assert f"FAILED {RESAMPLE}: it computes other numbers" in capsys.readouterr().out
    assert canary.main(["--wirte"]) == 2


def test_writing_them_again_changes_nothing_where_nothing_changed(monkeypatch, tmp_path):
    stored = json.loads(canary.FILE.read_text())
    monkeypatch.setattr(canary, "FILE", tmp_path / "canaries.json")
    assert canary.main(["--write"]) == 0
    written = json.loads((tmp_path / "canaries.json").read_text())
    assert {**written, "versions": stored["versions"]} == stored


def test_the_command_names_what_is_wrong(planned, monkeypatch, capsys, tmp_path):
    build = planned()
    (tmp_path / "recipe.toml").write_text(build.plan.recipe.to_toml())
    patch(monkeypatch, "window")
    monkeypatch.setattr(
        "sys.argv",
        [
            *("basilar", "build", str(tmp_path / "recipe.toml"), str(tmp_path / "audio")),
            *("--root", str(build.root)),
        ],
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "where: representation log_mel\n" in capsys.readouterr().err
    assert not build.root.exists()


def test_a_stage_of_which_nothing_is_recorded_is_refused(monkeypatch):
    monkeypatch.delitem(canary._packaged()["canaries"], "representation mel")
    with pytest.raises(CanaryError, match=r"representation mel: nothing is recorded; .* --write"):
        canary.check("representation mel")
