"""`resca analyze`: the analyses of the ResCa and DuCa papers, repeated on a model; a plot and a CSV each."""

from jobs.console import make_console
from jobs.errors import DONE
from jobs.measure.analysis.analyses import analyse
from jobs.options.measure import AnalyzeOptions


def run(options: AnalyzeOptions) -> int:
    """Make the analyses. Raises BadInput before anything is loaded."""
    analyse(options, make_console())
    return DONE
