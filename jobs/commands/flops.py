"""`resca flops`: what each method costs on a full-size model, counted without weights."""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.flops import count_costs
from jobs.measure.full_size import read_request
from jobs.measure.published import notes_on
from jobs.options.measure import FlopsOptions


def run(options: FlopsOptions) -> int:
    """Print one row a method. Raises BadInput before anything is counted."""
    request, console = read_request(options), make_console()
    rows = count_costs(request, make_console(stderr=True))
    print_rows(console, rows)
    for note in notes_on(request.model, request.methods):
        console.print(note, style="dim")
    if options.json:
        write_rows(options.json, rows)
    return DONE
