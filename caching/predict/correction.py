"""How wrong an extrapolation is between dense steps, and what a dense step does about it.

An extrapolation of order O through dense times t_0 ... t_O errs at t by about `c (t - t_0) ... (t - t_O)`. Each dense
step that could have been extrapolated gives c anew.
"""

from math import prod

from caching.state_dict import StateDict


class Nodes:
    """The dense times that an extrapolation of order O goes through, the last O + 1."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.times: list[float] = []

    def add(self, time: float) -> None:
        """End a dense step."""
        self.times = [*self.times, time][-(self.order + 1) :]

    def growth(self, time: float) -> float:
        """What the error grows with: the product of the distances from the nodes."""
        return prod(time - node for node in self.times)

    def state_dict(self) -> StateDict:
        return {"times": self.times}

    def load_state_dict(self, state: StateDict) -> None:
        self.times = state["times"]


class Correction:
    """How far sparse steps have led astray, told from the error at the next dense step (an Adams-Moulton corrector).

    What was added up on the way there follows from c. No further evaluation is needed.

    Args:
        gain: the part that is made good; the model itself has seen the strayed latents since, which undoes the rest.
    """

    def __init__(self, nodes: Nodes, gain: float) -> None:
        self.nodes, self.gain = nodes, gain
        self.strayed: list[list[float]] = []  # time and span of each sparse step since the last dense one

    def sparse(self, time: float, span: float) -> None:
        """Note a sparse step at `time` that advances the noise level by `span`."""
        self.strayed.append([time, span])

    def clear(self) -> None:
        """End a dense step: everything before it is made good."""
        self.strayed = []

    @property
    def due(self) -> bool:
        return bool(self.gain and self.strayed)

    def weight(self, time: float) -> float:
        """What the latents lack at `time`, in units of the velocity's error there."""
        return self.gain * sum(span * self.nodes.growth(at) for at, span in self.strayed) / self.nodes.growth(time)

    def state_dict(self) -> StateDict:
        return {"strayed": self.strayed}

    def load_state_dict(self, state: StateDict) -> None:
        self.strayed = state["strayed"]
