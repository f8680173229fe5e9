"""Guidance in parallel: each part of a video's ranks computes one pass of each step.

Legend: B batch, N local tokens, P values of a patch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from caching.group import Group
from caching.models.adapter import run_blocks
from caching.passes import Pass
from caching.step import Step


@dataclass(frozen=True, kw_only=True)
class Call:
    """One pass of the present step, which another part computes."""

    part: int
    each: Pass
    step: Step
    keep: bool
    answer: Tensor


class PartedStep:
    """The passes of one step, computed here, or by the parts of the ranks in their order.

    What another part computes is known when the last pass of the step is, and pipelines combine passes only then: an
    earlier call is answered with a tensor that gets its values later. The parts exchange velocities alone, and none
    where both can tell a sparse step's from those of dense steps.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.num_calls = 0
        self.own: Tensor | None = None  # what this part has computed in this step
        self.waiting: list[Call] = []

    def begin(self) -> None:
        """A step begins. RuntimeError if the last one had fewer passes than there are parts."""
        if self.waiting or self.own is not None:
            raise RuntimeError(f"guidance in parallel needs {self.group.num_parts} passes in each step")
        self.num_calls = 0

    def run(self, each: Pass, step: Step, *, computes: bool, keep: bool) -> Tensor:
        """The velocity `[B, N, P]` of a pass in float32, which computes every token or is a sparse step."""
        if self.group.num_parts == 1:
            return each.feature.dense(step, keep=keep) if computes else each.feature.sparse(step).float()
        if not computes and each.feature.follower:
            return each.feature.sparse(step).float()
        part, self.num_calls = self.num_calls, self.num_calls + 1
        if part == self.group.part:
            self.own = self._compute(each, step, computes=computes, keep=keep)
            answer = _followed(each, step, self.own, keep) if computes else self.own
        else:
            batch, num_tokens, _ = step.patches.shape
            shape = batch, num_tokens, step.adapter.velocity_values
            answer = torch.full(shape, torch.nan, device=step.patches.device)
            self.waiting.append(Call(part=part, each=each, step=step, keep=keep, answer=answer))
        if self.num_calls == self.group.num_parts:
            self._exchange(computes=computes)
        return answer

    def _compute(self, each: Pass, step: Step, *, computes: bool, keep: bool) -> Tensor:
        """What the other parts have to know of this part's pass."""
        if not computes:
            return each.feature.sparse(step).float()
        if each.feature.follower:
            return step.velocity(run_blocks(step.adapter, step.before))
        return each.feature.dense(step, keep=keep)

    def _exchange(self, *, computes: bool) -> None:
        assert self.own is not None
        by_part = self.group.exchange(self.own)
        for call in self.waiting:
            velocity = by_part[call.part]
            call.answer.copy_(_followed(call.each, call.step, velocity, call.keep) if computes else velocity)
        self.own, self.waiting = None, []


def _followed(each: Pass, step: Step, velocity: Tensor, keep: bool) -> Tensor:
    follower = each.feature.follower
    return follower.follow(step, velocity, keep=keep) if follower else velocity
