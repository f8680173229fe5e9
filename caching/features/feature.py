"""What a feature is, for whoever runs a generation.

Legend: B batch, N local tokens, P values of a patch.
"""

from typing import Protocol

from torch import Tensor

from caching.state_dict import Stateful
from caching.step import Step


class Follower(Protocol):
    """What can keep up with a pass that is computed elsewhere."""

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        """As a feature's `dense`, given what the model says `[B, N, P]`."""
        ...


class Feature(Stateful, Protocol):
    """What is cached in one pass of a generation, on one rank."""

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        """The velocity `[B, N, P]` of a step that computes every token; `keep` says whether sparse steps follow."""
        ...

    def sparse(self, step: Step) -> Tensor:
        """The velocity `[B, N, P]` of a step that computes less."""
        ...

    def detach(self) -> None:
        """Leave the model as it was, and let go of what is cached."""
        ...

    @property
    def follower(self) -> "Follower | None":
        """Itself, if all that it needs of a dense step is the velocity; else None."""
        ...

    @property
    def cache_bytes(self) -> int:
        """What is held for later steps."""
        ...
