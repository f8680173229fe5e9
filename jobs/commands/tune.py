"""`resca tune`: the fewest dense steps that reach a fidelity, or the best places for a number of them, by measuring."""

from jobs.console import make_console
from jobs.errors import DONE
from jobs.measure.tune.check import check
from jobs.measure.tune.tuning import tune
from jobs.options.measure import TuneOptions


def run(options: TuneOptions) -> int:
    """Search and write the recipe, or measure one. Raises BadInput before anything is loaded."""
    if options.check:
        check(options.check, options, make_console())
    else:
        tune(options, make_console())
    return DONE
