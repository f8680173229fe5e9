"""`resca scaling`: the same videos rendered by one rank and by several, in turns, and what they take.

python -m jobs scaling --layouts 1x1,2x1
"""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.scaling import compare_layouts
from jobs.options.measure import ScalingOptions


def run(options: ScalingOptions) -> int:
    """Print one row a layout. Raises BadInput before anything is started, InfrastructureError if ranks are lost."""
    console = make_console()
    rows = compare_layouts(options, console)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return DONE
