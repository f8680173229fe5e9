"""A latent video or image as patches and back, for models that embed it by a convolution without overlap.

Legend: B batch, C latent channels, F frames, H height, W width (in tokens where a grid is meant), N tokens,
P values of a patch (C x patch volume), D hidden width.
"""

from math import prod

from torch import Tensor, nn
from torch.nn import functional as F

from caching.models.adapter import BlockAdapter
from caching.models.state import Grid


class VideoPatches(BlockAdapter):
    """For adapters with the size of the model's `patch` along frames, height and width."""

    patch: tuple[int, int, int]

    @property
    def patch_values(self) -> int:
        """P, the values of a patch that goes in."""
        return self.transformer.config.in_channels * prod(self.patch)

    @property
    def velocity_values(self) -> int:
        """The values of a patch that comes out."""
        return self.transformer.config.out_channels * prod(self.patch)

    def grid(self, sample: Tensor) -> Grid:
        """The token grid of a latent video `[B, C, F, H, W]`."""
        frames, height, width = (size // patch for size, patch in zip(sample.shape[2:], self.patch, strict=True))
        return frames, height, width

    def unfold(self, sample: Tensor) -> Tensor:
        """A latent video `[B, C, F, H, W]` as patches `[B, N, P]`, in token order."""
        batch, channels = sample.shape[:2]
        (frames, height, width), (pt, ph, pw) = self.grid(sample), self.patch
        blocks = sample.reshape(batch, channels, frames, pt, height, ph, width, pw)
        return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, frames * height * width, -1)

    def fold(self, patches: Tensor, grid: Grid) -> Tensor:
        """The inverse of `unfold`."""
        (frames, height, width), (pt, ph, pw) = grid, self.patch
        blocks = patches.reshape(len(patches), frames, height, width, -1, pt, ph, pw).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return blocks.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def embed_patches(self, patches: Tensor, convolution: nn.Conv3d | nn.Conv2d, grid: Grid | None = None) -> Tensor:
        """Tokens `[B, N, D]` as the model's convolution makes them of patches `[B, N, P]`.

        A convolution rounds its sums otherwise than a linear layer does, and only the whole of the `grid` shows it how.
        """
        weight = convolution.weight
        if grid is not None:
            return convolution(self.fold(patches.to(weight.dtype), grid)).flatten(2).transpose(1, 2)
        return F.linear(patches.to(weight.dtype), weight.flatten(1), convolution.bias)


class ImagePatches(VideoPatches):
    """The same for images `[B, C, H, W]`; their grid has one frame."""

    def grid(self, sample: Tensor) -> Grid:
        """The token grid of a latent image."""
        height, width = (size // side for size, side in zip(sample.shape[-2:], self.patch[1:], strict=True))
        return 1, height, width

    def unfold(self, sample: Tensor) -> Tensor:
        """A latent image as patches `[B, N, P]`, in token order."""
        return super().unfold(sample[:, :, None])

    def fold(self, patches: Tensor, grid: Grid) -> Tensor:
        """The inverse of `unfold`; what a grid has more frames than one stands below each other."""
        frames, height, width = grid
        return super().fold(patches, (1, frames * height, width))[:, :, 0]


def channels_first(values: Tensor, num_channels: int) -> Tensor:
    """Patches `[B, N, P]` as `fold` takes them, from a model that puts channels last."""
    return values.unflatten(2, (-1, num_channels)).transpose(2, 3).flatten(2)
