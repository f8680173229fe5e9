"""Where tasks run: in this process, on gangs, or not again where an earlier run has left the answer."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Protocol, TypeVar

import torch

from jobs.measure.contest import load_renderer
from jobs.measure.sampling.task import Model, Task
from jobs.models.facts import ModelFacts
from jobs.options.shared import VideoOptions
from jobs.request.guidance import guides_for

Answer = TypeVar("Answer")
Heard = Callable[[int, Answer], object]  # the place of a task, and its answer


def unheard(_place: int, _answer: object) -> None:
    """For whom the answers at the end are enough."""


class Executor(Protocol):
    """Whoever runs tasks."""

    def map(self, tasks: Sequence[Task[Answer]], heard: Heard[Answer] = unheard) -> list[Answer]:
        """The answers, in the order of the tasks; `heard` is told each as soon as it is there."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Runs tasks one by one on a model in this process."""

    model: Model

    def map(self, tasks: Sequence[Task[Answer]], heard: Heard[Answer] = unheard) -> list[Answer]:
        """See `Executor`."""
        answers = []
        for place, task in enumerate(tasks):
            answers.append(task.run(self.model))
            heard(place, answers[-1])
        return answers


def load_model(facts: ModelFacts, video: VideoOptions) -> Model:
    """The model in this process alone."""
    return Model(load_renderer(facts, video), guides_for(facts, video))


class RememberingExecutor:
    """Keeps answers in a folder, and takes from there what is known.

    Args:
        inner: who runs what is not known.
        folder: where; made when the first answer comes.
        about: what all answers depend on: the model, its number format, its guidance.
    """

    def __init__(self, inner: Executor, folder: Path, about: str) -> None:
        self.inner, self.folder, self.about = inner, folder, about
        self.num_known = 0

    def map(self, tasks: Sequence[Task[Answer]], heard: Heard[Answer] = unheard) -> list[Answer]:
        """See `Executor`."""
        files = [self._file(task) for task in tasks]
        answers: dict[int, Answer] = {}
        for place, file in enumerate(files):
            if file and file.exists():
                answers[place] = torch.load(file, weights_only=True)
                heard(place, answers[place])
        self.num_known += len(answers)
        wanted = [place for place in range(len(tasks)) if place not in answers]

        def keep(number: int, answer: Answer) -> None:
            place = wanted[number]
            if file := files[place]:
                _save(answer, file)
            heard(place, answer)

        fresh = self.inner.map([tasks[place] for place in wanted], keep)
        answers.update(zip(wanted, fresh, strict=True))
        return [answers[place] for place in range(len(tasks))]

    def forget(self) -> None:
        """Remove all that is kept."""
        rmtree(self.folder, ignore_errors=True)

    def _file(self, task: Task[object]) -> Path | None:
        if task.key is None:
            return None
        return self.folder / f"{sha256(f'{self.about} {task.key}'.encode()).hexdigest()}.pt"


def _save(answer: object, file: Path) -> None:
    """Whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    torch.save(answer, part)
    part.replace(file)
