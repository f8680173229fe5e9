"""Score a demo model: does the oracle see in each video or image what its prompt says?

python -m jobs.demo.evaluate --method full --num 200
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console

from caching.recipe.recipe import recipe
from jobs.console import write_rows
from jobs.demo.items import drawn_prompts, takes_classes
from jobs.demo.oracle import look
from jobs.models.facts import read_facts
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer
from jobs.request.guidance import sampling_by_default

FIRST_SEED = 10_000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Sample captions that hold what training never saw together, or all classes in turn, and look."""

    model: str = "demo"
    method: str = "full"
    interval: int | None = None
    clusters: int | None = None
    order: int | None = None
    guidance: float | None = None
    num: int = 200
    """(prompt, seed) pairs."""
    json: Path | None = None
    """Write one row with the score, and what was missed, to this file."""


def evaluate(options: Evaluation) -> dict:
    """Render and judge every pair; prints progress, returns the score and the misses."""
    method = recipe(options.method, interval=options.interval, clusters=options.clusters, order=options.order)
    facts = read_facts(options.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    renderer = Renderer(
        load_pipeline(facts.source, dtype=facts.dtype, device=device), template=facts.defaults.prompt_template
    )
    engine = renderer.use(method)
    hits, misses, started = 0, [], time.monotonic()
    sampling = sampling_by_default(facts)
    if options.guidance is not None:
        sampling = replace(sampling, guidance=options.guidance)
    negative = facts.family.negative_prompt(sampling)
    prompts = drawn_prompts(options.num, FIRST_SEED, held_out=True, classes=takes_classes(facts))
    for number, prompt in enumerate(prompts):
        seed = FIRST_SEED + number
        latents = renderer.denoise(renderer.encode(prompt, negative), replace(sampling, seed=seed))
        seen = look(torch.from_numpy(renderer.decode(latents)).float() / 255)
        if seen.is_of(prompt):
            hits += 1
        else:
            misses.append({"prompt": prompt, "seed": seed, **vars(seen)})
        if (number + 1) % 10 == 0:
            seconds = time.monotonic() - started
            print(f"{number + 1}/{options.num}  score {hits / (number + 1):.3f}  {seconds:.0f} s", flush=True)
    return {
        "method": method.name,
        "oracle": hits / options.num,
        "num": options.num,
        "dense_steps": engine.dense_steps,
        "sparse_steps": engine.sparse_steps,
        "seconds": round(time.monotonic() - started, 1),
        "misses": misses,
        "recipe": method.describe(),
    }


def main(options: Evaluation) -> None:
    """Print the score."""
    row = evaluate(options)
    for miss in row["misses"][:20]:
        print(f"missed: {miss['prompt']} (seed {miss['seed']}): {miss['shape']}, {miss['colour']}, {miss['direction']}")
    Console().print(f"oracle's score with {row['method']}: {row['oracle']:.3f} of {row['num']} videos")
    if options.json:
        write_rows(options.json, [row])


if __name__ == "__main__":
    main(tyro.cli(Evaluation))
