from basilar.pipeline.manifests.manifest import Manifest
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.manifests.source import Source
from basilar.pipeline.plan import Plan
from basilar.pipeline.recipes.recipe import Recipe
from tests.conftest import SMALL


def test_the_sources_of_a_plan_are_its_contents_where_the_manifest_finds_them(audio_folder):
    (audio_folder / "clips.jsonl").write_text(
        '{"path": "a/00.wav"}\n{"path": "a/00.wav", "id": "part", "offset": 0.1, "duration": 0.1}'
    )
    manifest = scan(audio_folder / "clips.jsonl")
    assert isinstance(manifest, Manifest)
    plan = Plan(Recipe.from_dict(SMALL), manifest, 600.0)
    found = {source.content: source for shard in plan.shards for source in shard.sources}
    sha256 = manifest.column("sha256")[0]
    ids = dict(zip(manifest.column("id"), manifest.contents, strict=True))
    part = ids["part"]
    assert found.keys() == set(manifest.contents)
    assert found.pop(part) == Source(part, "a/00.wav", sha256, 0.1, 0.1)
    (whole,) = found.values()
    assert whole == Source(sha256, "a/00.wav", sha256)
    assert hash(whole) == hash(Source(sha256, "a/00.wav", sha256))
