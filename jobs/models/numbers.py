"""The numbers of a model that decide which sizes it has, and what they cost."""

from dataclasses import dataclass
from math import lcm


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of a model that decide what can be rendered."""

    heads: int
    width: int
    blocks: int
    patch: int
    patch_t: int
    spatial: int
    temporal: int
    latent_channels: int
    pixel_multiple: int
    """Of height and width, that the pipeline asks for whatever the VAE and the patches are."""
    num_frames: int | None = None
    """Of a model that makes no other number: 1 of images."""
    side: int | None = None
    """Pixels of height and width, of a model that makes one size."""
    attends_to_all: bool = True
    """Whether each token attends to all others; where not, one rank has all of them."""

    def grid(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """The tokens of a valid size, along (time, height, width)."""
        latent_frames = (num_frames - 1) // self.temporal + 1
        side = self.spatial * self.patch
        return latent_frames // self.patch_t, height // side, width // side

    def num_tokens(self, height: int, width: int, num_frames: int) -> int:
        """The latent tokens of a valid size."""
        t, h, w = self.grid(height, width, num_frames)
        return t * h * w

    def nearest(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """The valid size that is nearest to this one."""
        sides = [self.side or max(1, round(side / self.pixels)) * self.pixels for side in (height, width)]
        groups = max(0, round((num_frames - self.first_frames) / self.frames))
        return sides[0], sides[1], self.num_frames or groups * self.frames + self.first_frames

    @property
    def sizes(self) -> str:
        """Which sizes are valid, in words."""
        lengths = self.num_frames or f"a multiple of {self.frames} plus {self.first_frames}"
        sides = self.side or f"multiples of {self.pixels}"
        return f"height and width must be {sides} and num_frames {lengths}"

    def step_flops(self, num_tokens: int) -> float:
        """About the FLOPs of a dense step, whose N tokens of width d take 4 d N (N + 6 d) in each block.

        Linear layers take 24 N d**2 of them, attention 4 N**2 d (a multiply-add counts 2).
        """
        return 4.0 * self.width * num_tokens * (num_tokens + 6 * self.width) * self.blocks

    @property
    def pixels(self) -> int:
        """What height and width are multiples of."""
        return lcm(self.spatial * self.patch, self.pixel_multiple)

    @property
    def frames(self) -> int:
        """The frames of a video are a multiple of these, and the first ones."""
        return self.temporal * self.patch_t

    @property
    def first_frames(self) -> int:
        """The fewest frames: the causal VAE gives the first latent to one frame, each other one to `temporal`."""
        return self.temporal * (self.patch_t - 1) + 1
