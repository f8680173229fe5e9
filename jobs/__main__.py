"""The command line: `resca render PROMPTS --out DIR`, and more verbs (also `python -m jobs ...`)."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

from jobs.errors import INTERRUPTED, JobError
from jobs.options.command_line import COMMANDS, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 2 bad input, 3 partial, 33 infrastructure, 130 or 143 stopped."""
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"resca {version('resca-render')}")
        return 0
    try:
        return _run(parse(arguments))
    except JobError as error:
        print(f"resca: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(given: Any) -> int:
    _check_results(given)
    module = next(module for kind, module in COMMANDS.values() if type(given) is kind)
    return import_module(module).run(given)


def _check_results(given: Any) -> None:
    """What a command is to write at its end can be written, so that no hour of work is lost. Raises BadInput."""
    table, report = getattr(given, "json", None), getattr(given, "report", None)
    if table or report:
        from jobs.store.files import check_file, check_writable

        if table:
            check_file(table, "--json")
        if report:
            check_writable(report, "--report")


if __name__ == "__main__":
    sys.exit(main())
