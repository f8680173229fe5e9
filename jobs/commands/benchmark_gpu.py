"""`resca benchmark gpu`: seconds of dense and sparse steps at full size, in a few minutes.

python -m jobs benchmark gpu --report out/gpu
"""

import sys

from jobs.console import make_console, print_rows
from jobs.errors import DONE, INTERRUPTED
from jobs.machine import describe_run
from jobs.measure.gpu.benchmark import measure
from jobs.measure.gpu.report import readable
from jobs.options.gpu import GpuOptions


def run(options: GpuOptions) -> int:
    """Measure what there is time for and print one row each. Raises BadInput before anything is made."""
    measured, console = measure(options, describe_run(sys.argv[1:])), make_console()
    print_rows(console, [readable(row) for row in measured.rows])
    console.print(f"bfloat16 matrix product: {measured.about['matmul']}", soft_wrap=True)
    return INTERRUPTED if measured.stopped else DONE
