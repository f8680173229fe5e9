"""`resca benchmark overhead`: the seconds of a video through Ray, and in a plain torchrun process, in turns.

python -m jobs benchmark overhead --num 12 --rounds 3
"""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.overhead import compare_ways
from jobs.options.measure import OverheadOptions


def run(options: OverheadOptions) -> int:
    """Print what a video takes in both ways. Raises BadInput before anything is started."""
    console = make_console()
    rows = compare_ways(options, console)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return DONE
