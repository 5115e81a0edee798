"""`basilar ui`: its servers, and what their pages show of a real build in a browser."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from basilar.pipeline.build import ui
from basilar.pipeline.recipes.recipe import Recipe
from basilar.pipeline.tracking.location import embedded_tracking_uri
from tests.conftest import SMALL
from tests.pipeline.clusters import Processes, basilar, wait_for
from tests.pipeline.report.test_collect import browser, in_browser  # noqa: F401

STAND_IN = """
import http.server, os, signal, subprocess, sys
port, folder, chat = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(99)"
child = subprocess.Popen([sys.executable, "-uc", stubborn], stdout=subprocess.PIPE)
child.stdout.readline()
open(os.path.join(folder, str(port)), "w").write(f"{os.getpid()} {child.pid}")
print("a line\\n" * chat, end="", flush=True)
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path):
    """A server that starts a child which does not end when it is told to."""

    def make(name, chat=0):
        (port,) = ui.free_ports(port=0)
        command = [sys.executable, "-c", STAND_IN, str(port), str(tmp_path), str(chat)]
        return ui.Server(name, command, f"http://127.0.0.1:{port}/")

    return make


def failing(code):
    return ui.Server("the other", [sys.executable, "-c", code], "http://127.0.0.1:9/")


def started(folder):
    return [int(pid) for file in folder.iterdir() for pid in file.read_text().split()]


def have_ended(pids):
    """What is killed takes a moment, and an orphan waits for init as a zombie."""
    return wait_for(lambda: not alive(pids), 5)


def alive(pids):
    there = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                there.append(pid)
    return there


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_servers_and_all_they_started(stand_in, tmp_path, number):
    before, seen = signal.getsignal(number), []

    def ready():
        seen.extend(alive(started(tmp_path)))
        os.kill(os.getpid(), number)

    ui.run([stand_in("one"), stand_in("two")], ready=ready)
    assert len(seen) == 4
    assert have_ended(seen)
    assert signal.getsignal(number) == before


def test_a_server_that_does_not_start_ends_the_other_and_is_quoted(stand_in, tmp_path):
    code = f"""
import pathlib
while not any(file.stat().st_size for file in pathlib.Path({str(tmp_path)!r}).iterdir()):
    pass
print('x', *range(40), 'out of cheese', sep='\\n')
exit(3)"""
    with pytest.raises(
        ui.ServerError, match="the other: it ended with status 3; it printed"
    ) as error:
        ui.run([stand_in("one"), failing(code)], ready=pytest.fail)
    lines = str(error.value).splitlines()
    assert (lines[1], lines[-1], len(lines)) == ("  31", "  out of cheese", 11)
    assert len(started(tmp_path)) == 2
    assert have_ended(started(tmp_path))


def test_a_server_that_dies_later_ends_the_other(stand_in, tmp_path):
    def ready():
        first = started(tmp_path)
        os.kill(first[0], signal.SIGKILL)

    with pytest.raises(ui.ServerError, match="ended by signal 9; it printed"):
        ui.run([stand_in("one"), stand_in("two")], ready=ready)
    assert len(started(tmp_path)) == 4
    assert have_ended(started(tmp_path))


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(ui, "_PATIENCE", 0.3)
    with pytest.raises(ui.ServerError, match="the other: it does not answer after 0 s; it printed"):
        ui.run([failing("import time; time.sleep(99)")], ready=pytest.fail)


def test_a_program_that_is_not_there_ends_what_has_started(stand_in, tmp_path, monkeypatch):
    nothing = ui.Server("nothing", [str(tmp_path / "none")], "http://127.0.0.1:9/")
    start, seen = subprocess.Popen, []

    def start_in_turn(command, **options):
        if command == nothing.command:
            wait_for(lambda: len(started(tmp_path)) == 2, 30)
            seen.extend(alive(started(tmp_path)))
        return start(command, **options)

    monkeypatch.setattr(subprocess, "Popen", start_in_turn)
    with pytest.raises(FileNotFoundError):
        ui.run([stand_in("one"), nothing], ready=pytest.fail)
    assert len(seen) == 2
    assert have_ended(seen)


def test_servers_may_print_more_than_a_pipe_holds(stand_in, tmp_path):
    seen = []

    def ready():  # it answers after it has printed
        seen.extend(alive(started(tmp_path)))
        os.kill(os.getpid(), signal.SIGTERM)

    ui.run([stand_in("chatty", 300_000)], ready=ready)
    assert len(seen) == 2
    assert have_ended(seen)


@pytest.mark.parametrize("option", ["--luigi-port", "--mlflow-port"])
def test_a_port_that_is_taken_is_named(basilar, tmp_path, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = basilar("ui", "--root", tmp_path, option, port)
    assert code == 2
    assert f"error: nothing can listen on 127.0.0.1:{port} (Address already in" in err
    assert f"where: {option} {port}\n" in err
    assert f"{option} 0: any free one" in err
    assert list(tmp_path.iterdir()) == []


def test_one_port_is_not_enough_for_two(basilar, tmp_path):
    (port,) = ui.free_ports(port=0)
    both = ("--luigi-port", port, "--mlflow-port", port)
    code, _, err = basilar("ui", "--root", tmp_path, *both)
    assert code == 2
    assert "error: nothing can listen" in err
    assert f"where: --mlflow-port {port}\n" in err


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("none", "error: no such folder\nwhere: none\nto do: make it"),
        ("memory://bucket/x", "an object store holds no MLflow runs\nwhere: memory://bucket/x\n"),
        ("r?x", "cannot keep its database in a folder with ? or % in its name"),
    ],
)
def test_roots_without_runs_are_wrong_use(basilar, tmp_path, monkeypatch, root, said):
    monkeypatch.chdir(tmp_path)
    Path("r?x").mkdir()
    code, _, err = basilar("ui", "--root", root)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("told", [True, False])
def test_a_server_that_ends_fails_the_command_with_one_object(as_json, tmp_path, monkeypatch, told):
    addresses = ui.Addresses("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:2/#")

    def serve(root, *, luigi_port, mlflow_port, tell):
        assert (root, luigi_port, mlflow_port) == (tmp_path, 8082, 5000)
        if told:
            tell(addresses)
        raise ui.ServerError("luigid ended")

    monkeypatch.setattr(ui, "serve", serve)
    code, result = as_json("ui", "--root", tmp_path)
    assert code == 1
    expected = {"root": str(tmp_path), **vars(addresses)} if told else {"error": "luigid ended"}
    assert result == expected


def serve(processes, root, folder):
    """`basilar ui` on free ports: its process, and its addresses."""
    ports = ("--luigi-port", "0", "--mlflow-port", "0")
    process = processes.start(
        *basilar("ui", "--root", root, *ports, "--json"), folder=folder, TMPDIR=str(folder)
    )
    said = folder / "said"

    def told():
        assert process.poll() is None, said.read_text()
        return said.read_text().endswith("}\n")

    wait_for(told)
    return process, json.loads(said.read_text())


def children(pid):
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [child for child, parent in pairs if parent == pid]
    return found + [below for child in found for below in children(child)]


def listening(port):
    """The local addresses that something listens on at a port, as the kernel writes them."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A" and local.endswith(f":{port:04X}"):
                found.add(local.split(":")[0])
    return found


@pytest.mark.slow
def test_both_servers_listen_on_loopback_until_they_are_told_to_stop(tmp_path, tracker):
    root = tmp_path / "root"
    (root / "mlflow").mkdir(parents=True)
    made = Path(tracker.removeprefix("sqlite:///"))
    shutil.copy(made, embedded_tracking_uri(root).removeprefix("sqlite:///"))
    with Processes() as processes:
        process, found = serve(processes, root, tmp_path / "ui")
        assert found["root"] == str(root)
        assert found["runs"].startswith(f"{found['mlflow']}/#/experiments/1/runs?")
        for name in ("luigi", "mlflow"):
            assert listening(int(found[name].rsplit(":", 1)[1])) == {"0100007F"}
            with urllib.request.urlopen(found[name], timeout=30) as page:
                assert name in page.read().decode().lower()
        running = children(process.pid)
        assert len(running) >= 3  # luigid, mlflow ui, and the server that it starts
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert have_ended(running)
    assert [path.name for path in (tmp_path / "ui").iterdir()] == ["said"]


@pytest.fixture
def shot(browser, tmp_path):  # noqa: F811
    """A page of a browser that knows no network but loopback; `shot(name)` takes a picture."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.route(lambda url: "://127.0.0.1:" not in url, lambda route: route.abort())
    # Its offer to talk to a language model covers a third of the first page.
    page.add_init_script("localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = 'true'")

    def take(name):
        page.screenshot(path=tmp_path / f"{name}.png", animations="disabled")

    take.page = page
    return take


@pytest.mark.torture
@in_browser
def test_both_pages_show_a_real_build(shot, audio_folder, tmp_path):
    (audio_folder / "a" / "broken.wav").write_bytes(b"RIFF broken")
    root = tmp_path / "root"
    root.mkdir()
    with Processes() as processes:
        server, found = serve(processes, root, tmp_path / "ui")
        built = []
        for n_mels in (8, 12):
            small = SMALL | {"name": f"mel_{n_mels}"}
            small["representation"] = small["representation"] | {"n_mels": n_mels}
            file = tmp_path / f"{n_mels}.toml"
            file.write_text(Recipe.from_dict(small).to_toml())
            how = ("--shard-seconds", "1", "--workers", "1", "--json")
            luigid = ("--engine", "luigid", "--scheduler", found["luigi"])
            command = basilar("build", file, audio_folder, "--root", root, *how, *luigid)
            folder = tmp_path / f"build {n_mels}"
            build = processes.start(*command, folder=folder)
            assert build.wait(120) == 0, (folder / "said").read_text()
            built.append(json.loads((folder / "said").read_text().splitlines()[-1]))
            built[-1]["process"] = build.pid
        look_at_luigi(shot, found["luigi"], built[0])
        look_at_mlflow(shot, found["mlflow"], *built)
        running = children(server.pid)
        assert len(running) >= 3
        server.kill()
        assert have_ended(running)


def look_at_luigi(shot, address, built):
    page, (n_shards, key) = shot.page, (built["shards_computed"], built["key"])
    page.goto(address)
    page.locator("#taskTable_filter input").fill("mel_8")
    counts = {"Represent": n_shards, "Resample": n_shards}
    counts |= {"FitNormalization": 1, "Publish": 1, "LogRun": 1}
    page.locator("#taskTable_info", has_text=f"of {2 * n_shards + 3} entries").wait_for()
    shot("luigi tasks")
    page.locator("#taskTable_filter input").fill("mel_8 Publish")
    page.locator("#taskTable_info", has_text="of 1 entries").wait_for()
    publish = page.locator("#taskTable tbody tr")
    assert f"about=mel_8, 13 clips in {n_shards} shards" in publish.inner_text()
    publish.locator(".statusMessage").click()
    message = page.locator("#statusMessageModal")
    message.locator("pre", has_text="12 clips, 1 quarantined").wait_for()
    assert "about=mel_8, 13 clips" in message.locator(".modal-title").inner_text()
    assert message.locator(".progress-bar").inner_text().strip() == "100%"
    shot("luigi message")
    with urllib.request.urlopen(f"{address}/api/graph") as answer:
        known = json.load(answer)["response"]
    (run,) = (
        name
        for name, task in known.items()
        if f"MLflow run {built['mlflow_run_id']}" == task["status_message"]
    )
    assert known[run]["params"]["key"].startswith(key)
    assert re.fullmatch(rf".*:{built['process']}-[0-9a-f]{{4}}", known[run]["worker_running"])
    page.goto("about:blank")  # else the page is not loaded again
    page.goto(f"{address}/static/visualiser/index.html#tab=graph&taskId={run}")
    page.locator("svg .graph-node-a").nth(2 * n_shards + 2).wait_for()
    names = page.locator("svg .graph-node-a text").all_text_contents()
    assert {name: names.count(name) for name in names} == counts
    assert page.locator("svg line.link").count() == 2 + 3 * n_shards
    page.locator("svg .graph-node-a", has_text="Resample").first.hover()
    about = re.compile(rf"about: mel_8, shard \d of {n_shards}, \d clips")
    page.locator(".popover", has_text=about).wait_for()
    shot("luigi graph")


def look_at_mlflow(shot, address, built, other):
    page, (one, two) = shot.page, (built["mlflow_run_id"], other["mlflow_run_id"])
    page.goto(f"{address}/#/experiments/1/runs?workflowType=machine_learning")
    for name in ("mel_8", "mel_12"):
        page.get_by_role("link", name=f"{name} ").first.wait_for()
    page.get_by_role("link", name="bundle").nth(1).wait_for()
    shot("mlflow runs")

    run = f"{address}/#/experiments/1/runs/{one}"
    page.goto(run)
    page.get_by_text("12 clips, 0.00 h, as ").wait_for()
    for cells in (("clips", "12"), ("per_bin/mean", ""), ("representation.n_mels", "8")):
        row = page.get_by_role("row").filter(has=page.get_by_text(cells[0], exact=True))
        assert cells[1] in row.first.inner_text().split("\n")[-1]
    assert page.get_by_text(f"mel_8 ({built['digest']})").count() == 1
    shot("mlflow run")
    page.get_by_role("link", name="bundle").click()
    page.get_by_role("heading", name="bundle").wait_for()
    page.get_by_role("link", name=f"mel_8 {built['key'][:12]}").first.wait_for()
    page.get_by_text("representation.n_mels").first.wait_for()
    shot("mlflow model")

    page.goto(f"{run}/model-metrics")
    for name in ("max", "mean", "min", "std"):
        page.get_by_text(f"(per_bin/{name})").wait_for()
    points = page.locator(".js-plotly-plot .scatterlayer .point")
    wait_for(lambda: points.count() == 4 * 8, 20)  # four lines over the bins
    shot("mlflow charts")

    page.goto(f"{run}/artifacts/report.html")
    report = page.frame_locator("iframe")
    assert report.locator("h1").inner_text() == "mel_8"
    assert report.locator("#features svg").count() == 7
    shot("mlflow report")

    runs = urllib.parse.quote(json.dumps([one, two]))
    page.goto(f"{address}/#/compare-runs?runs={runs}&experiments=%5B%221%22%5D")
    page.get_by_text("Show diff only").first.click()
    differing = page.get_by_role("row").filter(has_text="representation.")
    wait_for(lambda: differing.count() == 1, 20)
    assert differing.inner_text().split() == ["representation.n_mels", "8", "12"]
    shot("mlflow comparison")
