"""What a generation's parts need to know of where they work."""

from dataclasses import dataclass

import torch

from caching.attention import Router
from caching.group import Group
from caching.models.state import Rotary


@dataclass(frozen=True, kw_only=True)
class Site:
    """One generation on one rank."""

    group: Group
    router: Router
    num_tokens: int  # of the whole video
    num_steps: int
    rotary: Rotary  # of the local tokens

    @property
    def local_tokens(self) -> int:
        """The tokens of this rank."""
        return self.rotary[0].shape[0]

    @property
    def device(self) -> torch.device:
        return self.rotary[0].device
