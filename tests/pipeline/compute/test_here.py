"""Plans of this installation; what they do is in test_guard.py and in tests of builds."""

from basilar.pipeline.compute.here import decoders_of, plan_here
from basilar.pipeline.manifests.scan import scan
from basilar.pipeline.plan import Plan
from tests.pipeline.store.test_publish import LOG_MEL, recipe_of


def test_where_nothing_deviates_it_is_the_plan_of_any_installation(audio_folder):
    manifest = scan(audio_folder)
    assert plan_here(recipe_of(LOG_MEL), manifest).key == Plan(recipe_of(LOG_MEL), manifest).key
    assert decoders_of(manifest) == {"soundfile"}
