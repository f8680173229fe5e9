"""The command line: `resca render PROMPTS --out DIR`, and more verbs (also `python -m jobs ...`)."""

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import is_dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from jobs.console import use_lasting_streams, visible
from jobs.errors import HUNG_UP, INTERRUPTED, TERMINATED, UNFORESEEN, BadInput, JobError, unforeseen
from jobs.options.command_line import COMMANDS, parse

STOPPED = {INTERRUPTED: "Ctrl-C", TERMINATED: "SIGTERM", HUNG_UP: "the end of its terminal"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit code is 0 done, 2 bad input, 3 partial, 33 infrastructure; 129, 130 or 143 stopped; 1
    for what was not foreseen, whose stack is in a file.
    """
    use_lasting_streams()
    threading.excepthook = _say_of_thread
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"resca {version('resca-render')}")
        return 0
    try:
        _check_directory()
        return _run(parse(arguments))
    except JobError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, SystemExit) as end:
        code = end.code if isinstance(end, SystemExit) else INTERRUPTED
        if code not in STOPPED:
            raise
        _say(f"stopped by {STOPPED[code]}")
        if arguments is None:
            _leave_at_once(code)
        return code
    except Exception as error:  # Ours or a library's: no command ends with a stack on the terminal.
        _say(unforeseen(error))
        return UNFORESEEN


def _leave_at_once(code: int) -> NoReturn:
    """Whoever stops a process may kill it 3 s later: what Python would still tidy up can take as long as that."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _say(sentence: str) -> None:
    print(f"resca: {visible(sentence)}", file=sys.stderr)


def _say_of_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None:
        _say(unforeseen(given.exc_value))


def _run(given: object) -> int:
    _check_names(given)
    _check_results(given)
    module = next(module for kind, module in COMMANDS.values() if type(given) is kind)
    return import_module(module).run(given)


def _check_directory() -> None:
    """Raises BadInput in a directory that is gone: paths mean nothing there, and no other process can be started."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise BadInput("the current directory has been removed; change to another one (cd) and try again") from error


def _check_names(given: object) -> None:
    """Raises BadInput for a path that is no text: no ledger, sidecar or message of Ray's can hold it."""
    options = [given, *filter(is_dataclass, vars(given).values())]
    named = {name: value for each in options for name, value in vars(each).items()}
    for what, value in {**named, "the current directory": os.getcwd()}.items():
        if isinstance(value, str | Path) and not _is_text(str(value)):
            raise BadInput(f"{what} {str(value)!r} is not UTF-8; rename it")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_results(given: object) -> None:
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
