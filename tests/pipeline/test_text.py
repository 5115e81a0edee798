import errno

import pytest

from basilar.pipeline import text


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
    said = text.in_lines(text.explain_error(OSError(number, "text", "/some/file")))
    assert said.splitlines() == [
        "error: the disk is full",
        "where: /some/file",
        "to do: free some space and run it again: it continues where it stopped",
    ]


def test_what_is_not_ours_is_a_bug(debug):
    error = TypeError("a: 1;\n2")
    assert text.in_lines(text.explain_error(error)).splitlines() == [
        "error: TypeError: a: 1; 2",
        "where: basilar build",
        "to do: run it again with --debug, and report what it prints",
    ]
