"""How the video VAEs of diffusers cut latents into overlapping tiles, and join what is decoded of these.

Legend: B batch, C latent channels, F H W latent frames, height and width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo15, AutoencoderKLWan
from torch import Tensor

Sides = tuple[int, int]  # along height and width


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The tiles of one VAE. Pixels are those that its decoder gives, which may each be several of the video."""

    tile: Sides
    """Pixels of a tile."""
    stride: Sides
    """Pixels from one tile to the next."""
    scale: int
    """Pixels of a latent, along each side."""
    temporal: int
    """Frames of a latent frame."""
    channels: int
    """Of a pixel."""
    in_use: bool

    def tiles(self, latents: Tensor) -> Iterator[Tensor]:
        """The overlapping tiles of `[B, C, F, H, W]`, row by row, in the order in which the VAE decodes them."""
        if not self._is_cut(latents):
            yield latents
            return
        height, width = (side // self.scale for side in self.tile)
        tops, lefts = self._corners(latents)
        for top in tops:
            for left in lefts:
                yield latents[:, :, :, top : top + height, left : left + width]

    def joined(self, latents: Tensor, decoded: Iterator[Tensor]) -> Tensor:
        """The frames of latents, of their decoded tiles: each blended with the one above it, then with that before."""
        if not self._is_cut(latents):
            return next(decoded)
        (tops, lefts), (down, right) = self._corners(latents), self.stride
        rows: list[Tensor] = []
        above: list[Tensor] = []
        for _ in tops:
            row = [next(decoded) for _ in lefts]
            for upper, tile in zip(above, row, strict=False):  # the first row has none above it
                blend(upper, tile, self.tile[0] - down, dim=3)
            for before, tile in pairwise(row):
                blend(before, tile, self.tile[1] - right, dim=4)
            rows.append(torch.cat([tile[:, :, :, :down, :right] for tile in row], dim=4))
            above = row
        height, width = (side * self.scale for side in latents.shape[3:])
        return torch.cat(rows, dim=3)[:, :, :, :height, :width]

    def decoded_shape(self, tile: Tensor) -> tuple[int, ...]:
        """Of the frames of a tile `[B, C, F, H, W]`."""
        batch, _, frames, height, width = tile.shape
        return batch, self.channels, (frames - 1) * self.temporal + 1, height * self.scale, width * self.scale

    def _is_cut(self, latents: Tensor) -> bool:
        sides = zip(latents.shape[-2:], self.tile, strict=True)
        return self.in_use and any(side > most // self.scale for side, most in sides)

    def _corners(self, latents: Tensor) -> tuple[range, range]:
        """Where the rows and the columns of tiles begin, in latents."""
        down, right = (each // self.scale for each in self.stride)
        return range(0, latents.shape[3], down), range(0, latents.shape[4], right)


def tiling_of(vae: AutoencoderKLHunyuanVideo | AutoencoderKLWan) -> Tiling:
    """That of a VAE which says how far apart tiles are; some give patches of pixels, which are put together later."""
    patch = vae.config.get("patch_size") or 1
    sides = (vae.tile_sample_min_height, vae.tile_sample_min_width)
    strides = (vae.tile_sample_stride_height, vae.tile_sample_stride_width)
    scale, temporal = vae.spatial_compression_ratio, vae.config.get("scale_factor_temporal")
    assert scale is not None
    return Tiling(
        tile=(int(sides[0]) // patch, int(sides[1]) // patch),
        stride=(int(strides[0]) // patch, int(strides[1]) // patch),
        scale=int(scale) // patch,
        temporal=int(temporal or vae.config["temporal_compression_ratio"]),
        channels=vae.config["out_channels"],
        in_use=vae.use_tiling,
    )


def tiling_by_overlap(vae: AutoencoderKLHunyuanVideo15) -> Tiling:
    """That of a VAE which says what part of a tile is the next one's, too."""
    height, width = vae.tile_sample_min_height, vae.tile_sample_min_width
    overlaps = [int(side * vae.tile_overlap_factor) for side in (height, width)]
    return Tiling(
        tile=(height, width),
        stride=(height - overlaps[0], width - overlaps[1]),
        scale=vae.spatial_compression_ratio,
        temporal=vae.temporal_compression_ratio,
        channels=vae.config["out_channels"],
        in_use=vae.use_tiling,
    )


def blend(before: Tensor, after: Tensor, overlap: int, dim: int) -> None:
    """Have the first `overlap` rows of `after` along `dim` go over, evenly, from the last of `before`: in place.

    What `blend_v`, `blend_h` and `blend_t` of the VAE do row by row; a piece may be shorter than the overlap.
    """
    overlap = min(before.shape[dim], after.shape[dim], overlap)
    falling = torch.arange(overlap, 0, -1, dtype=torch.float32, device=after.device) / overlap
    shape = [-1 if each == dim else 1 for each in range(after.ndim)]
    last = before.narrow(dim, before.shape[dim] - overlap, overlap)
    after.narrow(dim, 0, overlap).lerp_(last, falling.to(after.dtype).view(shape))
