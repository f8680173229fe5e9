"""The analyses by name, and each written as a plot and a CSV."""

from pathlib import Path

from rich.console import Console

from jobs.errors import BadInput
from jobs.measure.analysis import ablations, errors, latency, residuals, scale, scores, stability, trajectories
from jobs.measure.analysis.study import Analysis, Study
from jobs.measure.report import write_csv
from jobs.measure.sampling.executor import LocalExecutor, load_model
from jobs.measure.sampling.judge import Judge, calibration_items
from jobs.models.facts import read_facts
from jobs.options.measure import AnalyzeOptions
from jobs.store.files import check_writable

ANALYSES = {
    "residuals": residuals.analyse,
    "trajectories": trajectories.analyse,
    "ablations": ablations.analyse,
    "scores": scores.analyse,
    "errors": errors.analyse,
    "latency": latency.analyse,
    "stability": stability.analyse,
    "scale": scale.analyse,
}


def analyse(options: AnalyzeOptions, console: Console) -> None:
    """Make the analyses that are asked for. Raises BadInput before anything is loaded."""
    names = [name.strip() for name in options.only.split(",")] if options.only else list(ANALYSES)
    if unknown := [name for name in names if name not in ANALYSES]:
        raise BadInput(f"unknown analysis {unknown[0]!r}; known: {', '.join(ANALYSES)}")
    facts = read_facts(options.model, variant=options.video.variant)
    items = calibration_items(options, facts, options.num)
    check_writable(options.out, "the directory of --out")
    with console.status("sampling the prompts in full"):
        model = load_model(facts, options.video)
        study = Study(model, Judge(LocalExecutor(model), items))
    options.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        with console.status(name):
            _write(options.out, name, ANALYSES[name](study))
        console.print(f"{options.out / name}.png and .csv", soft_wrap=True)


def _write(directory: Path, name: str, analysis: Analysis) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    write_csv(directory / f"{name}.csv", analysis.rows)
    figure = pyplot.figure(figsize=(13, analysis.height), layout="constrained")
    analysis.draw(figure)
    figure.savefig(directory / f"{name}.png", dpi=110)
    pyplot.close(figure)
