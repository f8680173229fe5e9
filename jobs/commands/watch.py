"""Looking again and again: redrawn on a terminal, lines elsewhere, until there is nothing to wait for."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs.console import visible
from jobs.errors import BadInput

SHORTEST_S, LONGEST_S = 0.1, 86400.0
Look = TypeVar("Look")


def check_seconds(seconds: float) -> None:
    """Raises BadInput for what nobody could wait for."""
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise BadInput(f"--watch takes {SHORTEST_S:g} to {LONGEST_S:.0f} seconds, not {seconds:g}")


def watch(
    look: Callable[[], Look],
    is_over: Callable[[Look], bool],
    console: Console,
    lines: Callable[[Look], Sequence[str]],
    line: Callable[[Look], str],
    every_s: float,
) -> Look:
    """Shows each look until one `is_over`, and gives that one: all `lines` on a terminal, else `line` where it is new.

    What the last one shows stays, as all lines.
    """
    if not console.is_terminal:
        return _write(look, is_over, console, lines, line, every_s)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            seen = look()
            live.update(Text("\n".join(map(visible, lines(seen)))), refresh=True)
            if is_over(seen):
                return seen
            time.sleep(every_s)


def _write(
    look: Callable[[], Look],
    is_over: Callable[[Look], bool],
    console: Console,
    lines: Callable[[Look], Sequence[str]],
    line: Callable[[Look], str],
    every_s: float,
) -> Look:
    before = ""
    while not is_over(seen := look()):
        if (now := line(seen)) != before:
            console.print(f"{time.strftime('%H:%M:%S')} {now}", soft_wrap=True)
        before = now
        time.sleep(every_s)
    for each in lines(seen):
        console.print(each, soft_wrap=True)
    return seen
