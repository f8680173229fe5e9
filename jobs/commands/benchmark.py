"""`resca benchmark`: methods compared on the same prompts and seeds, in one process, interleaved."""

import sys

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE, INTERRUPTED
from jobs.machine import describe_run
from jobs.measure.benchmark import play, read_benchmark
from jobs.measure.report import write_report
from jobs.measure.rows import make_rows
from jobs.options.measure import BenchmarkOptions


def run(options: BenchmarkOptions) -> int:
    """Compare the methods and print one row each. Raises BadInput before anything is loaded."""
    request, console = read_benchmark(options), make_console()
    played = play(request, options, console)
    rows = make_rows(played.tallies)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    if options.report:
        peers = len(played.tallies) - len(request.methods)
        made = f"{played.num} {request.facts.family.medium.name}s"
        title = f"{len(request.methods)} methods and {peers} peers, {options.model}: {made}"
        write_report(options.report, rows, played.shown, title, describe_run(sys.argv[1:]))
    return DONE if played.num == len(request.items) else INTERRUPTED
