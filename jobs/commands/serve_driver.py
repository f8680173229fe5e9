"""`resca serve driver`, which `resca serve` starts by itself: renders what the door takes, until it is told to end."""

from jobs.commands.render import run as render
from jobs.options.serve import ServeDriverOptions
from jobs.serve.rendering import driver_options
from jobs.serve.supervisor import end_with_input


def run(options: ServeDriverOptions) -> int:
    """The exit code of the rendering, which ends when somebody cancels it. Raises as `render` does."""
    end_with_input()
    with driver_options(options) as asked:
        return render(asked)
