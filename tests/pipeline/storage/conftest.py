import pytest

from basilar.pipeline import storage
from basilar.pipeline.build import luigi_engine
from basilar.pipeline.build.build import Build
from basilar.pipeline.plan import Plan
from basilar.pipeline.storage import urls
from basilar.pipeline.training.feature_set import FeatureSet


@pytest.fixture(scope="session")
def published(tmp_path_factory, built):
    """A set in a store, to read: its root, key and digest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(urls, "_made", {})
        manifest = built.plan.manifest
        build = Build(
            root=storage.place("memory://kept/root"),
            plan=Plan(built.plan.recipe, manifest, 1.0),
            tracking_uri="",
        )
        assert luigi_engine.run(build, workers=1, log=False).succeeded
        value = FeatureSet.open(built.store).digest
        urls._forget()
    return "memory://kept/root", build.plan.key, value
