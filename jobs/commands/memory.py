"""`resca memory`: the weights that each rank holds of a full-size model, counted on the meta device."""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.memory import count_ranks
from jobs.options.measure import MemoryOptions


def run(options: MemoryOptions) -> int:
    """Print one row a number of ranks. Raises BadInput for a model whose pipeline cannot be rendered."""
    rows = count_ranks(options.model)
    print_rows(make_console(), rows)
    if options.json:
        write_rows(options.json, rows)
    return DONE
