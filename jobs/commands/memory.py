"""`resca memory`: what each rank holds of a full-size model, counted on the meta device."""

from collections.abc import Mapping, Sequence

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.measure.memory import count_peaks, count_ranks
from jobs.options.measure import MemoryOptions


def run(options: MemoryOptions) -> int:
    """Print one row a number of ranks, or of methods. Raises BadInput for a model whose pipeline cannot be rendered."""
    console = make_console()
    rows: Sequence[Mapping[str, object]]
    said = make_console(stderr=True)
    rows = count_peaks(options, said) if options.methods else count_ranks(options.model, options.weights)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return DONE
