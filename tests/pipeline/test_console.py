import io
import json
import logging
import sys

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
