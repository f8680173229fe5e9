"""`resca export geneval OUT --to DIR --metadata FILE`: finished images as GenEval reads them.

It takes a folder for each prompt, named by the number of the prompt's line in its evaluation_metadata.jsonl, with that
line and a folder `samples` of numbered images (evaluation/evaluate_images.py of github.com/djghosh13/geneval):

    python evaluation/evaluate_images.py DIR/images --outfile results.jsonl --model-path MODELS
    python evaluation/summary_scores.py results.jsonl
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.commands.images import Images, conclude, read_images
from jobs.console import count
from jobs.driver.export import Finished, lay_out
from jobs.errors import BadInput
from jobs.options.batch import GenEvalOptions
from jobs.store.documents import first_problem


class Line(BaseModel):
    """Of GenEval's metadata: the prompt, and beside it what is to be seen, which is passed on."""

    model_config = ConfigDict(extra="allow")

    prompt: str


def run(options: GenEvalOptions) -> int:
    """Lay the images out. Returns 3 if the batch is not done, or images or prompts are missing; else 0.

    Raises:
        BadInput: nothing is finished, what is are videos, the metadata cannot be read, or the directory holds something
            else.
    """
    lines, images = _read(options.metadata), read_images(options.out, judge="GenEval")
    files, texts = _laid_out(lines, images)
    if not files:
        raise BadInput(f"none of the images in {images.batch} is of a prompt in {options.metadata}")
    lay_out(options.to, images.batch, files, texts)
    missing = sum(line.prompt not in images.by_title for line in lines)
    others = images.by_title.keys() - {line.prompt for line in lines}
    said = [
        *([f"{count(missing, 'prompt')} of {options.metadata} without an image"] if missing else []),
        *([f"{count(len(others), 'prompt')} left out, as {options.metadata} has no such"] if others else []),
    ]
    return conclude(images, len(files), options.to, said)


def _laid_out(lines: list[Line], images: Images) -> tuple[dict[str, Finished], dict[str, str]]:
    """Images and metadata by their names."""
    files, texts = {}, {}
    for number, line in enumerate(lines):
        folder = f"images/{number:05d}"
        for index, image in enumerate(images.by_title.get(line.prompt, ())):
            files[f"{folder}/samples/{index:05d}.png"] = image
            texts[f"{folder}/metadata.jsonl"] = json.dumps(line.model_dump()) + "\n"
    return files, texts


def _read(path: Path) -> list[Line]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Line.model_validate_json(line) for line in lines if line.strip()]
    except ValidationError as error:
        raise BadInput(f"{path} is not GenEval's evaluation_metadata.jsonl: {first_problem(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
