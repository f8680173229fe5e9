"""`resca flops`: what each method costs on a full-size model, counted without weights."""

import sys

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE, BadInput
from jobs.machine import describe_run
from jobs.measure.flops import count_costs
from jobs.measure.full_size import read_request
from jobs.measure.papers.count import count_table
from jobs.measure.papers.page import row, summary, write_tables
from jobs.measure.papers.registry import TABLES
from jobs.measure.published import notes_on
from jobs.options.measure import FlopsOptions


def run(options: FlopsOptions) -> int:
    """Print one row a method. Raises BadInput before anything is counted."""
    if options.all_papers:
        return count_papers(options)
    if options.report:
        raise BadInput("--report is made of the papers' tables; give --all-papers, too")
    request, console = read_request(options), make_console()
    rows = count_costs(request, make_console(stderr=True))
    print_rows(console, rows)
    for note in notes_on(request.model, request.methods):
        console.print(note, style="dim")
    if options.json:
        write_rows(options.json, rows)
    return DONE


def count_papers(options: FlopsOptions) -> int:
    """Print every published figure beside what is counted for it."""
    console, progress = make_console(), make_console(stderr=True)
    tables = [(table, count_table(table, progress)) for table in TABLES]
    rows = [row(table, counted) for table, counts in tables for counted in counts]
    shown = ("table", "label", "published", "stated", "found", "deviation")
    print_rows(console, [{name: each[name] for name in shown} for each in rows])
    console.print(summary(tables))
    if options.json:
        write_rows(options.json, rows)
    if options.report:
        write_tables(options.report, tables, describe_run(sys.argv[1:]))
    return DONE
