"""The VAE of images: decoded whole, and by one rank, as the pipelines decode them.

Legend: B images, C latent channels, H W latent height and width, H' W' those of an image.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from jobs.models.numbers import Numbers

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from torch import Tensor

    from parallel.rank_group import RankGroup


class VaeConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are its."""

    block_out_channels: tuple[int, ...] = (64,)
    latent_channels: int = 4

    @property
    def spatial(self) -> int:
        """Pixels of a latent, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


def flat_numbers(
    coder: VaeConfig,
    *,
    heads: int,
    head_width: int,
    blocks: int,
    patch: int,
    latent_channels: int,
    num_frames: int = 1,
    side: int | None = None,
    attends_to_all: bool = True,
) -> Numbers:
    """Those of a model of images, or of videos whose frames are images to the VAE."""
    return Numbers(
        heads=heads,
        width=heads * head_width,
        blocks=blocks,
        patch=patch,
        patch_t=1,
        spatial=coder.spatial,
        temporal=1,
        latent_channels=latent_channels,
        pixel_multiple=1,
        num_frames=num_frames,
        side=side,
        attends_to_all=attends_to_all,
    )


def decode_images(vae: "AutoencoderKL", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
    """Pieces `[1, 3, 1, H', W']`, one an image, of scaled latents `[B, C, H, W]`; on rank 0 alone."""
    decode: Any = vae.decode  # which declares to take what no tensor is
    if group.rank == 0:
        for image in latents.to(vae.dtype).split(1):
            yield decode(image, return_dict=False)[0][:, :, None]
