"""`resca submit scaling --out URL`: measure layouts and gangs on a cluster, from another machine.

python -m jobs submit scaling --dashboard http://127.0.0.1:8265 --layouts 1x1,8x1 --gangs 4 --out /shared/scaling
"""

from pathlib import Path

from jobs.commands.job import Job, check_model, check_place, flags_of, send
from jobs.errors import BadInput
from jobs.measure.scaling.compare import read_cases
from jobs.options.scaling import ScalingOptions, SubmitScalingOptions
from jobs.request.prompts import Defaults, read_items
from jobs.request.recipes import SUFFIXES, read_recipe


def run(options: SubmitScalingOptions) -> int:
    """Returns the job's own exit code when it is followed. Raises BadInput and InfrastructureError."""
    if options.address:
        raise BadInput("--address is for scaling; the job attaches to the cluster that it is submitted to")
    read_cases(options)
    job = job_of(options)
    if options.prompts:
        read_items(options.prompts, Defaults(height=1, width=1, num_frames=1, steps=1))
    if options.method.endswith(SUFFIXES):
        read_recipe(Path(options.method))
    check_model(options.model)
    for option in ("out", "report", "json"):
        if place := getattr(options, option):
            check_place(f"--{option}", str(place))
    return send(job, options.dashboard, follows=options.follow)


def job_of(options: SubmitScalingOptions) -> Job:
    """The measurement as a job; prompts and a recipe go along."""
    files = {}
    if options.prompts:
        files[f"prompts{options.prompts.suffix}"] = options.prompts
    if options.method.endswith(SUFFIXES):
        recipe = Path(options.method)
        files[f"recipe{recipe.suffix}"] = recipe
    words = ["scaling", "--address", "auto", *flags_of(options, ScalingOptions(), files, leave_out=("address",))]
    return Job(words=words, files=files, model=options.model, out=options.out)
