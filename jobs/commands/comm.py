"""`resca comm`: what each rank sends in a denoising loop, counted by running it on the meta device as one rank."""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.comm import count_sent
from jobs.measure.full_size import read_request
from jobs.options.measure import CommOptions


def run(options: CommOptions) -> int:
    """Print one row a method, bytes sent by each rank. Raises BadInput for what cannot be counted."""
    console = make_console()
    rows = count_sent(read_request(options), make_console(stderr=True))
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return DONE
