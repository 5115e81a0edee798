"""The command as a whole: help, completion, wrong use, bugs."""

import json
import os
import re
import subprocess
import sys

import pytest

from basilar.pipeline.cli import options
from tests.conftest import REPOSITORY

LOG_MEL = str(REPOSITORY / "params" / "log_mel.toml")
pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", LOG_MEL, "audio", "--root", "r", "--clip-timeout", "0"], "clip-timeout"),
        (["build", LOG_MEL, "audio", "--root", "r", "--clip-timeout", "inf"], "must be above 0"),
        (["recipe", "missing.toml"], "missing.toml"),
        (["recipe"], "where: basilar recipe to do: name one, use --schema"),
        (
            ["recipe", "wrong.toml"],
            "error: representation.n_mel is not a key where: wrong.toml, line 3 to do: did ",
        ),
        (
            ["build", LOG_MEL, "missing.parquet", "--root", "r"],
            "error: no such file or folder where: missing.parquet to do: check its",
        ),
        (["build", LOG_MEL, "missing", "--root", "r"], "missing to do: check its path"),
        (
            ["build", LOG_MEL, "audio", "--root", "r", "--keep", "all"],
            "allowed are decode, resampl",
        ),
        (["build", LOG_MEL, "audio", "--root", "r", "--workers", "0"], "workers"),
        (["build", LOG_MEL, "audio"], "Missing option '--root'"),
        (["scan", "audio", "-o", "m.txt"], "m.txt to do: the suffix must be .parquet"),
        (
            ["scan", "audio", "-o", "m.csv", "--split", "train=x"],
            "write shares as train=0.8,test=0.",
        ),
        (
            ["scan", "audio", "-o", "m.csv", "--split", "0.8"],
            "error: no such table where: --split 0.8 to do: name a CSV, or shares like train=0.8",
        ),
        (
            ["build", LOG_MEL, "audio", "--root", "r%", "--tracking-uri", ""],
            "with ? or % in its na",
        ),
        (["show", "ff", "--root", "."], "no feature set with a key that begins with 'ff'"),
        (["ls", "--root", "r"], "error: no such folder where: r to do: name the"),
        (["show", "ff", "--root", "r"], "error: no such folder where: r to do: name the --root"),
        (["recipe", "missing.toml"], "where: missing.toml to do:"),
        (["build", LOG_MEL, "audio", "--root", "r", "--register", "a/b"], "write NAME or NAME@"),
        (["check-bundle", "."], "to do: basilar bundle KEY makes one"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_use_exits_with_two_and_says_what_is_right(
    basilar, audio_folder, tmp_path, arguments, message
):
    (tmp_path / "wrong.toml").write_text('[representation]\nkind = "mel"\nn_mel = 3\n')
    code, out, err = basilar(*arguments)
    assert code == 2
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())


def test_a_root_that_is_a_file_is_named(basilar, audio_folder, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = basilar("build", LOG_MEL, audio_folder, "--root", "file")
    assert code == 1
    assert err.splitlines()[-3:] == [
        "error: something else has this name",
        f"where: {tmp_path / 'file'}",
        "to do: name another path",
    ]


def test_every_command_has_an_example_and_a_group(basilar):
    commands = [
        command.name or command.callback.__name__ for command in options.app.registered_commands
    ]
    assert len(commands) > 15
    for command in (name.replace("_", "-") for name in commands):
        code, out, _ = basilar(command, "--help")
        assert code == 0
        assert f"Example: basilar {command} " in " ".join(out.split())
    code, out, _ = basilar("--help")
    assert code == 0
    assert "Example: basilar build " in out
    assert "--debug" in out
    assert re.findall("╭─ (.*?) ─", out) == ["Options", "Make", "Use", "Prove", "Keep"]


def test_help_and_completion_import_little():
    heavy = {"numpy", "scipy", "pydantic", "luigi", "mlflow", "zarr", "pandas", "pyarrow"}
    code = f"import sys, basilar.pipeline.cli; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_shell_completes_keys_and_shipped_recipes(tmp_path):
    (tmp_path / "root" / "features" / f"3f{'0' * 30}.zarr").mkdir(parents=True)

    def bash(script):
        (tmp_path / "basilar").write_text(
            f"#!{sys.executable}\nfrom basilar.pipeline.cli import main\nmain()\n"
        )
        (tmp_path / "basilar").chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }
        return subprocess.run(
            ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True
        ).stdout

    source = bash("basilar --show-completion; true")  # the shell stays, to be recognised
    assert "complete -o default -F _basilar_completion basilar" in source
    complete = "_basilar_completion basilar; echo ${COMPREPLY[@]}"
    words = "COMP_WORDS=(basilar show --root root 3) COMP_CWORD=4"
    assert bash(f"{source}\n{words}; {complete}") == f"3f{'0' * 30}\n"
    words = "COMP_WORDS=(basilar build mfc) COMP_CWORD=2"
    assert bash(f"{source}\n{words}; {complete}") == "mfcc\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["ls", "--nonsense"], "No such option: --nonsense"),
        (["ls"], "Missing option '--root'."),
        (["nonsense"], "No such command 'nonsense'."),
        (
            ["build", "log_mel", "a", "--root", "r", "--workers", "0"],
            "Invalid value for '--workers'",
        ),
    ],
)
def test_what_the_command_line_does_not_have_is_said_plainly(basilar, as_json, arguments, problem):
    code, out, err = basilar(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: basilar ")
    assert f"\nError: {problem}" in err
    code, said = as_json(*arguments)
    assert (code, list(said)) == (2, ["error"])
    assert said["error"].startswith(problem)


@pytest.mark.parametrize("arguments", [("--debug", "ls"), ("ls", "--debug")])
def test_a_bug_is_said_to_be_one_and_traced_on_request(basilar, as_json, monkeypatch, arguments):
    def is_folder(_):
        raise TypeError("of this kind")

    monkeypatch.setattr("basilar.pipeline.storage.is_folder", is_folder)
    code, out, err = basilar("ls", "--root", "root")
    assert (code, out) == (1, "")
    to_do = "run it again with --debug, and report what it prints"
    plain = f"error: TypeError: of this kind\nwhere: basilar ls\nto do: {to_do}\n"
    assert err == plain
    assert as_json("ls", "--root", "root") == (
        *(1, {"error": f"basilar ls: TypeError: of this kind; {to_do}"}),
    )
    code, _, err = basilar(*arguments, "--root", "root")
    assert code == 1
    assert err.startswith("Traceback")
    assert "in is_folder\n" in err
    assert err.endswith(plain)


@pytest.mark.parametrize(
    ("command", "where", "kept"),
    [
        (
            "scan audio -o m.csv",
            "manifests.scan.scan",
            "what was read is remembered; the same ",
        ),
        (
            "build log_mel audio --root r",
            "manifests.scan.scan",
            "what was made is kept; the ",
        ),
        (
            "verify KEY --root ROOT",
            "audit.verify.verify",
            "nothing is kept; the same",
        ),
        (
            "reproduce KEY --root ROOT",
            "audit.reproduce.reproduce",
            "nothing is kept; the same",
        ),
        (
            "reproduce KEY --root ROOT --into new",
            "audit.reproduce.reproduce",
            "what was made is in new",
        ),
        (
            "parity KEY --root ROOT",
            "audit.parity.parity",
            "nothing is kept; the same",
        ),
        ("report KEY --root ROOT -o r.html", "report.collect.collect", "nothing is kept; the same"),
    ],
)
def test_what_the_keyboard_stops_says_what_is_kept(
    basilar, as_json, built, monkeypatch, command, where, kept
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"basilar.pipeline.{where}", stop)
    words = {"KEY": built.plan.key, "ROOT": built.root}
    arguments = [words.get(word, word) for word in command.split()]
    code, out, err = basilar(*arguments)
    assert (code, out, err.count("\n")) == (130, "", 1)
    assert err.startswith(f"stopped: {kept}")
    assert as_json(*arguments) == (130, {"error": "stopped"})


def test_names_of_files_are_utf8_in_any_locale(audio_folder, tmp_path):
    (audio_folder / "a" / "00.wav").rename(audio_folder / "a" / "grüße – 音.wav")
    command = [sys.executable, "-c", "from basilar.pipeline.cli import main; main()"]
    done = subprocess.run(
        [*command, "scan", str(audio_folder), "-o", "ü.csv", "--json"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout)["manifest"] == "ü.csv"
    assert "a/grüße – 音.wav" in (tmp_path / "ü.csv").read_text("utf-8")


@pytest.mark.slow
def test_a_task_that_fails_is_traced_on_request(basilar, audio_folder):
    manifest = audio_folder.parent / "m.parquet"
    basilar("scan", audio_folder, "-o", manifest)
    (audio_folder / "a" / "00.wav").write_bytes(b"RIFF changed")
    command = [sys.executable, "-c", "from basilar.pipeline.cli import main; main()"]
    command += ["build", LOG_MEL, str(manifest), "--root", "root", "--workers", "2"]
    plain = (
        "error: it has changed since it was scanned\n"
        f"where: {audio_folder / 'a' / '00.wav'}\nto do: scan again\n"
    )
    for option, begins in (([], plain), (["--debug"], "Traceback")):
        done = subprocess.run([*command, *option], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(begins)
        assert done.stderr.endswith(plain)


def test_version(basilar):
    assert basilar("--version")[1] == "basilar 0.3.0\n"
