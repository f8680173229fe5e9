"""VAE decoding by all ranks: the tiles that AutoencoderKLHunyuanVideo decodes one by one are dealt out in turns.

Legend: B batch, C latent channels, F H W latent frames, height and width, P ranks.
"""

from collections.abc import Callable, Iterator

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor

from parallel.rank_group import RankGroup


@torch.no_grad()
def decode(vae: AutoencoderKLHunyuanVideo, latents: Tensor, group: RankGroup) -> Iterator[Tensor]:
    """Frames `[B, 3, f, 8 H, 8 W]` in order, piece after piece of time; joined they are what `vae.decode` gives.

    Latents are `[B, C, F, H, W]`, already divided by the scaling factor, and the same on every rank. Only rank 0 gets
    pieces; the others get none, but have to run the iterator to its end. Tile i is decoded by rank (i + 1) % P and sent
    to rank 0, which blends tiles by the VAE's own code while the others go on, and so gets none of a last, short turn.
    """
    slabs = list(_slabs(vae, latents))
    tiles = [tile for slab in slabs for tile in _tiles(vae, slab)]
    if group.rank > 0:
        _hand_in(vae, tiles[group.rank - 1 :: group.world_size], group)
        return
    decoded = _decoded(vae, vae.decoder.forward, tiles, group)
    overlap = int(vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames)
    last: Tensor | None = None
    for slab in slabs:
        frames = _assemble(vae, slab, lambda _: next(decoded))
        if last is None:
            yield frames[:, :, : vae.tile_sample_stride_num_frames + 1] if len(slabs) > 1 else frames
        else:
            frames = vae.blend_t(last, frames[:, :, 1:], overlap)
            yield frames[:, :, : vae.tile_sample_stride_num_frames]
        last = frames


def _slabs(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Iterator[Tensor]:
    """The overlapping pieces of time that the VAE decodes one by one."""
    length, stride = (
        int(frames) // vae.temporal_compression_ratio
        for frames in (vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames)
    )
    if not vae.use_framewise_decoding or latents.shape[2] <= length:
        yield latents
        return
    for start in range(0, latents.shape[2], stride):
        slab = latents[:, :, start : start + length + 1]
        if start == 0 or slab.shape[2] > 1:  # The first frame of a later slab is dropped.
            yield slab


def _is_tiled(vae: AutoencoderKLHunyuanVideo, slab: Tensor) -> bool:
    sides = zip(slab.shape[-2:], (vae.tile_sample_min_height, vae.tile_sample_min_width), strict=True)
    return vae.use_tiling and any(side > most // vae.spatial_compression_ratio for side, most in sides)


def _tiles(vae: AutoencoderKLHunyuanVideo, slab: Tensor) -> Iterator[Tensor]:
    """The overlapping tiles of a slab, in the order in which the VAE decodes them."""
    if not _is_tiled(vae, slab):
        yield slab
        return
    height, width, down, right = (
        int(pixels) // vae.spatial_compression_ratio
        for pixels in (
            vae.tile_sample_min_height,
            vae.tile_sample_min_width,
            vae.tile_sample_stride_height,
            vae.tile_sample_stride_width,
        )
    )
    for top in range(0, slab.shape[3], down):
        for left in range(0, slab.shape[4], right):
            yield slab[:, :, :, top : top + height, left : left + width]


def _assemble(vae: AutoencoderKLHunyuanVideo, slab: Tensor, decoder: Callable[[Tensor], Tensor]) -> Tensor:
    """A slab's frames, blended by the VAE's own code from tiles that come from elsewhere."""
    if not _is_tiled(vae, slab):
        return decoder(slab)
    own = vars(vae.decoder)
    own["forward"] = decoder
    try:
        return vae.tiled_decode(slab, return_dict=False)[0]
    finally:
        del own["forward"]


def _decoded(
    vae: AutoencoderKLHunyuanVideo,
    decoder: Callable[[Tensor], Tensor],
    tiles: list[Tensor],
    group: RankGroup,
) -> Iterator[Tensor]:
    """On rank 0: every tile, in order. Of P tiles it decodes the last, and then takes the others from their ranks."""
    num_ranks = group.world_size
    for first in range(0, len(tiles), num_ranks):
        turn = tiles[first : first + num_ranks]
        own = [decoder(vae.post_quant_conv(tile)) for tile in turn[num_ranks - 1 :]]
        for rank, tile in enumerate(turn[: num_ranks - 1], start=1):
            yield group.receive(rank, _decoded_shape(vae, tile), tile.dtype)
        yield from own


def _hand_in(vae: AutoencoderKLHunyuanVideo, tiles: list[Tensor], group: RankGroup) -> None:
    """On the other ranks: decode one's own tiles; each is on its way to rank 0 while the next is decoded."""
    sent: Callable[[], None] | None = None
    for tile in tiles:
        frames = vae.decoder(vae.post_quant_conv(tile))
        if sent:
            sent()
        sent = group.send(frames)
    if sent:
        sent()


def _decoded_shape(vae: AutoencoderKLHunyuanVideo, tile: Tensor) -> tuple[int, ...]:
    batch, _, frames, height, width = tile.shape
    scale = vae.spatial_compression_ratio
    num_frames = (frames - 1) * vae.temporal_compression_ratio + 1
    return batch, vae.config["out_channels"], num_frames, height * scale, width * scale
