"""The cases' turns: which can be measured, for which there is time, and what came of it."""

import torch

from caching.flops import count, count_full_flops
from jobs.errors import InfrastructureError
from jobs.measure.full_size import DTYPE
from jobs.measure.gpu.bench import Bench
from jobs.measure.gpu.cases import Case
from jobs.measure.gpu.model import Video
from jobs.measure.gpu.rows import CaseRow, Loop, Yardstick, add_flops, bare_row, loop_of, loop_run, make_row
from jobs.measure.gpu.timing import Budget, Timing, matmul_flops_per_s
from jobs.models.family import Configs
from jobs.models.full_size import Size as ModelSize
from jobs.models.hunyuan_video import HunyuanVideo
from parallel.local_attention import Attention, obstacle

COMPILATION_S = 60.0
EXPECTED_MFU = 0.4  # until a dense step has been timed
# What a case may fail by while the others go on: kernels and compilers, and assertions of peers.
FAILURES = (RuntimeError, ValueError, ImportError, AssertionError)


class GpuContest:
    """Cases on one transformer, within a budget of time.

    Raises:
        InfrastructureError: if the device has no room for the weights.
    """

    def __init__(self, model: ModelSize, *, num_steps: int, repeats: int, budget: Budget) -> None:
        self.model, self.num_steps, self.budget = model, num_steps, budget
        try:
            self.bench = Bench(model, num_steps=num_steps, repeats=repeats, budget=budget)
        except torch.OutOfMemoryError as error:
            raise InfrastructureError("the GPU has not enough free memory for the model's weights") from error
        self.matmul_flops_per_s = matmul_flops_per_s(self.bench.device)
        self.dense_s: dict[Video, float] = {}  # of full sampling
        self.full_loop_s: dict[tuple[Video, bool], float] = {}  # by whether it is compiled

    @property
    def kernel(self) -> str:
        """The attention kernel of cases that name none."""
        return Attention().kernel(torch.empty(0, device=self.bench.device, dtype=DTYPE))

    def play(self, case: Case) -> CaseRow:
        """Time one case, whose FLOPs are still to be counted; one that cannot be timed gets a row that says why."""
        if obstacle := self._obstacle(case):
            return bare_row(case, f"not run: {obstacle}")
        try:
            timing = self.bench.measure(case)
        except torch.OutOfMemoryError:
            return bare_row(case, "out of memory")
        except FAILURES as error:
            return bare_row(case, f"failed: {(str(error) or type(error).__name__).splitlines()[0]}")
        return self._row(case, timing)

    def _obstacle(self, case: Case) -> str | None:
        """Why there is no use in trying."""
        head_width = self.bench.transformer.config["attention_head_dim"]
        if without := obstacle(case.kernel, self.bench.device, DTYPE, head_width):
            return without
        if case.recipe is None and (package := self._missing(case.name)):
            return f"{package} is not installed"
        if self._expected_s(case) > self.budget.left_s:
            return "no time left"
        return None

    def _missing(self, peer: str) -> str | None:
        from jobs.measure.gpu.rivals import RIVALS

        return None if RIVALS[peer].available else RIVALS[peer].needs

    def _expected_s(self, case: Case) -> float:
        """What a case will take at least, its sparse steps left out."""
        num_tokens = case.video.num_tokens + self.model.num_text_tokens
        numbers = HunyuanVideo().numbers(Configs(transformer=self.model.config))
        guess = numbers.step_flops(num_tokens) / (EXPECTED_MFU * self.matmul_flops_per_s)
        dense_s = self.dense_s.get(case.video, guess)
        return sum(self.bench.fewest_steps(case)) * dense_s + COMPILATION_S * case.compiled

    def _row(self, case: Case, timing: Timing) -> CaseRow:
        loop = self._loop(case, timing)
        if case.name == "full" and case.attention == "default" and loop.seconds:
            self.full_loop_s[case.video, case.compiled] = loop.seconds
            self.dense_s.setdefault(case.video, loop.seconds / self.num_steps)
        full_loop_s = self.full_loop_s.get((case.video, case.compiled))
        return make_row(case, timing, loop, num_steps=self.num_steps, full_loop_s=full_loop_s)

    def _loop(self, case: Case, timing: Timing) -> Loop:
        from jobs.measure.gpu.rivals import PLAIN

        if case.recipe is not None:
            plan = case.recipe.dense_plan(self.num_steps)
            return loop_of(timing, sum(plan), len(plan) - sum(plan))
        return loop_of(timing, self.num_steps, 0) if case.name == PLAIN else loop_run(timing, self.num_steps)

    def count(self, case: Case, row: CaseRow) -> CaseRow:
        """The case's row with its FLOPs, if it was timed.

        They are counted on the meta device, which takes seconds in which a GPU has nothing to do: call it after all
        timing.
        """
        if "timed_dense" not in row:
            return row
        size = {"grid": case.video.grid, "num_text_tokens": self.model.num_text_tokens}
        yardstick = Yardstick(
            num_steps=self.num_steps,
            step_flops=count_full_flops(self.model.config, num_steps=1, **size),
            matmul_flops_per_s=self.matmul_flops_per_s,
        )
        if case.recipe is None:
            return add_flops(row, None, yardstick)
        cost = count(self.model.config, case.recipe, num_steps=self.num_steps, dtype=DTYPE, **size)
        return add_flops(row, cost.flops, yardstick)
