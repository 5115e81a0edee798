import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from basilar.pipeline.build import registry
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.storage import locks
from tests.conftest import SMALL


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "small.toml").write_text(Recipe.from_dict(SMALL).to_toml())
    return tmp_path / "small.toml"


def test_status_shows_what_runs(built, basilar, as_json):
    code, out, _ = basilar("status", "--root", built.root)
    assert (code, out) == (0, "no build is running\n")
    with locks.session(built.root):
        built.register()
        code, result = as_json("status", "--root", built.root)
        assert code == 0
        (found,) = result["builds"]
        assert found["key"] == built.plan.key
        assert (found["clips"], found["quarantined"], found["share"]) == (13, 1, 1.0)
        assert found["stages"]["decode"] == [len(built.plan.shards)] * 2
        _, out, _ = basilar("status", "--root", built.root)
        assert out.startswith(f"small {built.plan.key[:12]}: 100%, 13 of 13 clips, 1 quarantined")
        registry.end(built.root)


def test_status_of_no_root_is_wrong_use(basilar, tmp_path):
    assert basilar("status", "--root", tmp_path / "none")[0] == 2


class Quiet(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_worker_without_builds_ends(as_json, built):
    with HTTPServer(("127.0.0.1", 0), Quiet) as luigid:
        threading.Thread(target=luigid.handle_request).start()
        url = f"http://127.0.0.1:{luigid.server_port}"
        code, found = as_json("worker", "--root", built.root, "--scheduler", url, "--idle", "0")
    assert (code, found) == (0, {"builds": {}, "failures": []})


@pytest.mark.parametrize("nobody", ["nonsense", "http://nonsense.invalid", "http://127.0.0.1:9"])
def test_a_worker_without_a_luigid_is_wrong_use(basilar, built, nobody):
    code, _, err = basilar("worker", "--root", built.root, "--scheduler", nobody, "--idle", 0)
    assert code == 2
    assert err.count("\n") == 3
    assert f"where: {nobody}\nto do: start luigid, or name another" in err


def test_a_luigid_that_does_not_answer_is_wrong_use(basilar, recipe, audio_folder, tmp_path):
    how = ("--engine", "luigid", "--scheduler", "http://127.0.0.1:9")
    code, _, err = basilar("build", recipe, audio_folder, "--root", tmp_path / "root", *how)
    assert code == 2
    assert "where: http://127.0.0.1:9\n" in err
    assert not list((tmp_path / "root" / "running").iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ("--engine", "luigid"),
        ("--engine", "dask"),
        ("--scheduler", "http://127.0.0.1:9"),
        ("--engine", "luigid", "--dask", "tcp://127.0.0.1:9"),
    ],
)
def test_engines_take_their_own_options(basilar, recipe, audio_folder, tmp_path, options):
    code, _, err = basilar("build", recipe, audio_folder, "--root", tmp_path / "root", *options)
    assert code == 2
    assert "luigid needs --scheduler, dask needs --dask" in err


def test_without_a_cluster_a_dask_build_fails_and_says_why(
    basilar, as_json, recipe, audio_folder, tmp_path, tracker
):
    where = ("--engine", "dask", "--dask", tmp_path / "none.json", "--workers", 1)
    how = ("build", recipe, audio_folder, "--root", tmp_path / "root", *where)
    code, _, err = basilar(*how, "--tracking-uri", tracker)
    assert code == 1
    assert "none.json\nto do: name one, or an address" in err
    _, said = as_json(*how, "--tracking-uri", tracker)
    assert "/none.json: no such scheduler file; name one, or" in said["error"]
