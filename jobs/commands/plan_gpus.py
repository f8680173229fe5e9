"""`resca plan --gpus 1,8,64 --gpu h100 --model hunyuanvideo`: what so many GPUs would render; needs none of them."""

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE
from jobs.options.capacity import CapacityOptions
from jobs.predict.plan import make_rows, read_question


def run(options: CapacityOptions) -> int:
    """Print one row a number of GPUs, method and aim. Raises BadInput for what is not known, or does not fit."""
    question, console = read_question(options), make_console()
    rows = make_rows(question)
    console.print(question.words, soft_wrap=True)
    print_rows(console, rows)
    for note in question.notes:
        console.print(note, soft_wrap=True)
    if options.json:
        write_rows(options.json, rows)
    if options.report:
        from jobs.predict.page import write_report

        write_report(options.report, question, rows)
    return DONE
