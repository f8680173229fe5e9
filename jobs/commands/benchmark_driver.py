"""`resca benchmark driver`: what a driver takes for itself, by the number of its gangs.

python -m jobs benchmark driver --gangs 8,32,128 --ranks 8 --ranks-per-process 64
"""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.driver import measure_driver
from jobs.options.measure import DriverOptions


def run(options: DriverOptions) -> int:
    """Print what was measured of each number of gangs. Raises BadInput before anything is started."""
    console = make_console()
    rows = measure_driver(options, console)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return DONE
