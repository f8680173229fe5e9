"""Full samplings of two prompts by a tiny pipeline."""

from functools import partial
from pathlib import Path

from jobs.measure.sampling.executor import LocalExecutor, load_model
from jobs.measure.sampling.judge import Judge, calibration_items
from jobs.models.facts import read_facts
from jobs.options.measure import TuneOptions
from jobs.options.shared import VideoOptions
from tests.jobs import tiny_wan
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline
from tests.jobs.tiny_wan import save_tiny_wan

# A model of one pass with Euler's steps, one of two with UniPC's, and one of two transformers.
KINDS = {
    "hunyuan_video": (save_tiny_pipeline, SIZE),
    "wan": (save_tiny_wan, tiny_wan.SIZE),
    "wan-2.2": (partial(save_tiny_wan, kind="2.2"), tiny_wan.SIZE),
}


def make_judge(kind: str, directory: Path, *, steps: int) -> Judge:
    save, size = KINDS[kind]
    facts = read_facts(str(save(directory / "model")))
    (directory / "prompts.txt").write_text("a cat walks on grass\ngrass\n")
    video = VideoOptions(steps=steps, **size)
    options = TuneOptions(prompts=directory / "prompts.txt", model=str(directory / "model"), num=2, video=video)
    return Judge(LocalExecutor(load_model(facts, video)), calibration_items(options, facts, 2))
