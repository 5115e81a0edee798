from typing import Annotated

from basilar.dsp import resample
from basilar.pipeline.recipes import hashes
from basilar.pipeline.recipes.kinds.base import AddedLater
from basilar.pipeline.recipes.recipe import Recipe, Resample
from tests.conftest import REPOSITORY

# If one of these moves without an op version having been raised, stored sets would be lost.
SHIPPED = {
    "ast": "6e7f0ec20863c92920176e121457b061",
    "chroma": "f9fb5196ff220062859977cbfc6be013",
    "chroma_cqt": "b7caec4a7aca91be23d8dc4e64a53fd7",
    "clap": "868166c9236bf0e9e78545c2e6267e23",
    "cqt": "11a003558ea42a33fefc75d41d859a33",
    "cqt_magnitude": "cafc48572f8aa952f345194094772ba8",
    "decibel": "7f4131205f4844fd88732033c76917f2",
    "kaldi_fbank": "2696432e2a6722d9eb0db6b7b4da11d5",
    "kaldi_mfcc": "b3c2e6744a4ff6469be3309e2a9cc5a1",
    "librosa_mel": "bdfcf0d61a305eb171d52d8357f1dfc2",
    "log_cqt": "a1d58cea611e9e4fb401a812ab51226c",
    "log_magnitude": "202498310129af0feb227ced62977c31",
    "log_mel": "5cf96d630c8ddd8c54a0e37c9b61ddbf",
    "log_mel_512": "dc893039fb5a6ada702bd2b96dbae766",
    "log_mel_speech": "92e35cbed47fc2b9a36077e436601350",
    "log_vqt": "0ed1020418fd29727fa948e5b6becd0e",
    "magnitude": "166875aa121710d69975cd62adf32d6c",
    "mel": "81b6ae9fb5cff2b2502d8a9376ae35ea",
    "mfcc": "aef8d6e9b62ff4a4fa79c1e10abfca45",
    "musicnn": "b68fab73779cd9d014ac07ac261ac9ca",
    "panns": "c2e6c6ac82b7c83650f3f2e16b4a5097",
    "pcen": "eab45389a62c72d84aebfb74ab07ef95",
    "power": "c467eb42cde99b5ae64435706691c8d2",
    "spectral": "38a7588960bc8d1b326c0495225ca27c",
    "stft": "70ed7360d2064d25b84acbccb8a575a7",
    "torchaudio_mel": "de7bc07e7003e880fdb8e745126298e7",
    "torchaudio_mfcc": "4e99985fe73826a2509f8a53463b703d",
    "vggish": "5b40b4e29c3509798a602d2a5b66235c",
    "waveform": "01de35a8feb5237e5d3f9d077dfbe364",
    "whisper_128": "71cbbe9926f9bd6d02c72ff82069c250",
    "whisper_80": "350ce8d7ff2d5e12a3ac84752bd518b2",
}


def test_the_hash_of_every_shipped_recipe_is_pinned():
    found = {
        file.stem: hashes.recipe_hashes(Recipe.load(file))["normalization"]
        for file in sorted((REPOSITORY / "params").glob("*.toml"))
    }
    assert found == SHIPPED


def recipe_hash(**sections):
    sections.setdefault("representation", {"kind": "log_mel"})
    return hashes.recipe_hashes(Recipe.from_dict(sections))["normalization"]


def test_recipe_hash_covers_what_changes_numbers():
    hashes = [
        recipe_hash(),
        recipe_hash(decode={"channels": "first"}),
        recipe_hash(decode={"channels": 0}),
        recipe_hash(decode={"max_seconds": 60.0}),
        recipe_hash(decode={"max_channels": 2}),
        recipe_hash(decode={"max_mib": 1024}),
        recipe_hash(resample={"sample_rate": 16000}),
        recipe_hash(resample={"quality": "high"}),
        recipe_hash(representation={"kind": "log_mel", "n_mels": 127}),
        recipe_hash(representation={"kind": "log_mel", "dtype": "float16"}),
        recipe_hash(representation={"kind": "log_mel", "top_db": 80.0}),
        recipe_hash(representation={"kind": "mel"}),
        recipe_hash(normalization={"kind": "standard"}),
        recipe_hash(normalization={"split": "all"}),
    ]
    assert len(set(hashes)) == len(hashes)


def test_recipe_hash_leaves_out_what_does_not():
    assert recipe_hash() == recipe_hash(name="another", store={"codec": "archive", "chunk_kib": 1})
    spelled_out = {"kind": "log_mel", "win_length": 2048, "fmax": 11025.0, "fmin": 0, "n_mels": 128}
    assert recipe_hash() == recipe_hash(representation=spelled_out)


def test_upstream_hashes_are_inside_downstream_ones(monkeypatch):
    before = hashes.recipe_hashes(Recipe.from_dict({"representation": {"kind": "mel"}}))
    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 99)
    after = hashes.recipe_hashes(Recipe.from_dict({"representation": {"kind": "mel"}}))
    assert [stage for stage in before if before[stage] != after[stage]] == [
        "resample",
        "representation",
        "normalization",
    ]


def test_hashes_of_versions_that_were_recorded(monkeypatch):
    recipe = Recipe.from_dict({"representation": {"kind": "log_mel"}})
    then, versions = hashes.recipe_hashes(recipe), hashes.op_versions(recipe)
    monkeypatch.setitem(resample.VERSIONS, "sinc_kaiser", 99)
    assert hashes.recipe_hashes(recipe) != then
    assert hashes.recipe_hashes(recipe, versions) == then


def test_a_feature_key_covers_recipe_manifest_and_decoders():
    found = {hashes.feature_key("r", "m", [])}
    found |= {hashes.feature_key("x", "m", []), hashes.feature_key("r", "x", [])}
    assert len(found | {hashes.feature_key("r", "m", ["libsndfile 1.2.2"])}) == 4


def test_a_field_added_later_is_in_no_hash_while_it_has_its_default():
    class Later(Resample):
        dithered: Annotated[bool, AddedLater()] = False

    then = Recipe.from_dict({"representation": {"kind": "log_mel"}})
    now, other = (then.model_copy(update={"resample": Later(dithered=d)}) for d in (False, True))
    assert hashes.recipe_hashes(now) == hashes.recipe_hashes(then)
    assert hashes.recipe_hashes(other)["resample"] != hashes.recipe_hashes(then)["resample"]


def test_a_key_added_later_is_in_no_hash_of_what_was_recorded_before():
    class Later(Resample):
        dithered: bool = False

    then = Recipe.from_dict({"representation": {"kind": "log_mel"}})
    now = then.model_copy(update={"resample": Later()})
    recorded = then.resolved()
    assert hashes.recipe_hashes(then, recorded=recorded) == hashes.recipe_hashes(then)
    assert hashes.recipe_hashes(now)["decode"] == hashes.recipe_hashes(then)["decode"]
    assert hashes.recipe_hashes(now)["resample"] != hashes.recipe_hashes(then)["resample"]
    assert hashes.recipe_hashes(now, recorded=recorded) == hashes.recipe_hashes(then)
    del recorded["resample"]["quality"]
    assert hashes.recipe_hashes(then, recorded=recorded) != hashes.recipe_hashes(then)
