import shutil

from basilar.pipeline.storage import locks


def test_gc_says_what_would_go_and_removes_it_when_asked(root, basilar, as_json):
    code, out, _ = basilar("gc", "--root", root)
    assert code == 0
    assert "0.0 MB can be freed (--delete); 1 feature sets are kept with all they need" in out
    (store,) = (root / "features").glob("*.zarr")
    shutil.rmtree(store)
    code, out, _ = basilar("gc", "--root", root)
    assert "of no published feature set" in out
    _, dry = as_json("gc", "--root", root)
    assert list(root.glob("artifacts/representation/*"))
    code, done = as_json("gc", "--root", root, "--delete")
    assert (code, dry["deleted"], done["deleted"]) == (0, False, True)
    assert {**dry, "deleted": True} == done
    assert done["feature_sets"] == 0
    assert sum(stage["bytes"] for stage in done["stages"].values()) == done["bytes"] > 0
    assert set(done["stages"]) == {"representation", "resample", "statistics", "histogram"}
    assert not list(root.glob("artifacts/*/*"))
    assert list(root.glob("catalogue/features/*.json"))


def test_gc_removes_nothing_while_a_build_is_at_work(root, basilar, monkeypatch):
    def busy(*_):
        raise BlockingIOError(11, "held")

    monkeypatch.setattr(locks.fcntl, "lockf", busy)
    code, _, err = basilar("gc", "--root", root, "--delete")
    assert code == 1
    assert "is at work there\n" in err
    assert "to do: try again when it has ended\n" in err
    assert basilar("gc", "--root", root)[0] == 0
    assert basilar("gc", "--root", root / "missing")[0] == 2


def test_doctor(root, basilar, as_json):
    code, out, _ = basilar("doctor", "--root", root)
    assert code == 0
    assert "ok       hard links" in out
    code, result = as_json("doctor", "--root", root, "--tracking-uri", "http://127.0.0.1:9")
    assert (code, result["ok"]) == (1, False)
    assert [c["name"] for c in result["checks"] if c["state"] == "failed"] == ["tracker"]
