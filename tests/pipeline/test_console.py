import errno
import io
import json
import logging
import sys

import pytest

from basilar.pipeline import console, text
from basilar.pipeline.cli.options import UsageError


def test_results_are_one_json_object_or_lines(capsys):
    text.print_result({"key": "é"}, True, "a line")
    assert json.loads(capsys.readouterr().out) == {"key": "é"}
    text.print_result({"key": "é"}, False, "a line", "another")
    assert capsys.readouterr().out == "a line\nanother\n"


def test_a_result_is_shown_where_its_letters_are_not_known(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    text.print_result({}, False, "é → a")
    out.flush()
    assert out.buffer.getvalue() == b"\\xe9 \\u2192 a\n"


def test_forced_colours_make_no_screen(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks and CI do
    assert not console.on_screen()
    assert list(console.progress("doing")(iter("abc"), 3)) == list("abc")
    assert capsys.readouterr().err == ""


def test_progress_gives_every_item_also_without_a_screen(capsys):
    assert list(console.progress("doing")(iter("abc"), 3)) == list("abc")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("r.toml: it is wrong; mend it", ["error: it is wrong", "where: r.toml", "to do: mend it"]),
        ("a: b: c; d; e", ["error: b: c; d", "where: a", "to do: e"]),
        ("a: b", ["error: b", "where: a"]),
        ("b; c", ["error: b", "to do: c"]),
        ("b", ["error: b"]),
        ("s3://a: b", ["error: b", "where: s3://a"]),
        (
            "a: b; c\n  one: two; three\na: d; e",
            ["error: b", "where: a", "to do: c", "  one: two; three", "error: d"],
        ),
    ],
)
def test_a_message_is_laid_out_in_three_lines(message, lines):
    assert text.in_lines(message).splitlines()[:5] == lines


def test_each_mistake_has_its_lines():
    said = text.in_lines("a: b; c\na: d; e").splitlines()
    assert [line.partition(": ")[0] for line in said] == ["error", "where", "to do"] * 2


def test_errors_of_the_file_system_say_where_and_what_to_do():
    for number in errno.errorcode:
        error = OSError(number, "text", "/some/file")
        what, where, to_do = text.in_lines(text.explain_error(error)).splitlines()
        assert what.startswith("error: ")
        assert where == "where: /some/file"
        assert to_do.startswith("to do: ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_are_told_alike(number):
    said = console.laid_out(console.explained(OSError(number, "text", "/some/file")))
    assert said.splitlines() == [
        "error: the disk is full",
        "where: /some/file",
        "to do: free some space and run it again, which goes on where it stopped",
    ]


@pytest.fixture
def debug():
    yield text.begin(["build", "--debug", "a", "--", "--debug"])
    text.begin([])


def failed():
    try:
        try:
            raise KeyError("the cause")
        except KeyError:
            raise UsageError("a: b; c") from None
    except UsageError:
        return sys.exc_info()


def test_a_traceback_is_printed_for_debug_alone(request, capsys):
    kind, error, trace = failed()
    record = logging.LogRecord("luigi", logging.ERROR, "", 0, "failed", (), (kind, error, trace))
    plain = "error: b\nwhere: a\nto do: c"
    assert text.Lines().format(record) == plain
    console.print_failure(error)
    assert capsys.readouterr().err == f"{plain}\n"
    assert request.getfixturevalue("debug") == ["build", "a", "--", "--debug"]
    said = text.Lines().format(record)
    assert said.startswith("Traceback")
    assert "KeyError: 'the cause'" in said
    assert said.endswith(plain)
    console.print_failure(error)
    assert capsys.readouterr().err == f"{said}\n"


def test_what_is_not_ours_is_a_bug(debug):
    error = TypeError("a: 1;\n2")
    assert text.in_lines(text.explain_error(error)).splitlines() == [
        "error: TypeError: a: 1; 2",
        "where: basilar build",
        "to do: run it again with --debug, and report what it prints",
    ]
