"""`resca scaling`: the same videos rendered by one rank and by several, in turns, and what was predicted of it.

python -m jobs scaling --layouts 1x1,2x1 --gangs 2 --report out/scaling-report
"""

import sys
from collections.abc import Mapping

from rich.console import Console

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE, BadInput
from jobs.machine import describe_run
from jobs.measure.scaling.compare import Comparison, compare_layouts
from jobs.measure.scaling.predicted import Predicted, predict
from jobs.measure.scaling.report import link_rows, make_rows, write_report
from jobs.measure.scaling.times import Case
from jobs.options.scaling import ScalingOptions


def run(options: ScalingOptions) -> int:
    """Print one row a case. Raises BadInput before anything is started, InfrastructureError if ranks are lost."""
    console = make_console()
    found = compare_layouts(options, console)
    predicted = _predicted(found, console)
    rows = make_rows(found.times, predicted)
    print_rows(console, rows)
    print_rows(console, link_rows(found.times))
    if options.json:
        write_rows(options.json, rows)
    if options.report:
        write_report(options.report, found.times, predicted, describe_run(sys.argv[1:]))
    return DONE


def _predicted(found: Comparison, console: Console) -> Mapping[Case, Predicted]:
    """Nothing, and why, for a method that is not predicted."""
    try:
        return predict(found.plan, found.times, on_gpus=found.on_gpus)
    except BadInput as error:
        console.print(f"not predicted: {error}", soft_wrap=True)
        return {}
