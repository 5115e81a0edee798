"""The `basilar` command: the whole of it, or what there is of it without what builds need."""

from typing import NoReturn

from basilar.pipeline import host


def main() -> NoReturn:
    """Run the command, and exit."""
    if host.can_fork() and not host.missing("build"):
        from basilar.pipeline.cli import command

        command.main()
    else:
        from basilar.pipeline.cli import core

        core.main()
