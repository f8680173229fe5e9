"""VAE decoding by all ranks: the tiles that diffusers' video VAEs decode one by one are dealt out in turns.

Legend: B batch, C latent channels, F H W latent frames, height and width, P ranks.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan
from torch import Tensor

from parallel.rank_group import RankGroup

TiledVae = AutoencoderKLHunyuanVideo | AutoencoderKLWan
PIECE_FRAMES = 16  # of what is decoded at once, that are handed on at a time
Run = Callable[[Tensor], Tensor]  # a tile of latents to its frames


@torch.no_grad()
def decode(vae: AutoencoderKLHunyuanVideo, latents: Tensor, group: RankGroup) -> Iterator[Tensor]:
    """Frames `[B, 3, f, 8 H, 8 W]` in order, piece after piece of time; joined they are what `vae.decode` gives.

    Latents are `[B, C, F, H, W]`, already divided by the scaling factor, and the same on every rank. Only rank 0 gets
    pieces; the others get none, but have to run the iterator to its end. Tile i is decoded by rank (i + 1) % P and sent
    to rank 0, which blends tiles while the others go on, and so gets none of a last, short turn.
    """
    slabs = list(_slabs(vae, latents))
    tiles = [tile for slab in slabs for tile in _tiles(vae, slab)]

    def run(tile: Tensor) -> Tensor:
        return vae.decoder(vae.post_quant_conv(tile))

    if group.rank > 0:
        _hand_in(run, tiles[group.rank - 1 :: group.world_size], group)
        return
    decoded = _decoded(run, tiles, partial(_decoded_shape, vae, vae.temporal_compression_ratio), group)
    overlap = int(vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames)
    last: Tensor | None = None
    for slab in slabs:
        frames = _assemble(vae, slab, decoded)
        if last is None:
            yield frames[:, :, : vae.tile_sample_stride_num_frames + 1] if len(slabs) > 1 else frames
        else:
            frames = frames[:, :, 1:]
            blend(last, frames, overlap, dim=2)
            yield frames[:, :, : vae.tile_sample_stride_num_frames]
        last = frames


@torch.no_grad()
def decode_frame_by_frame(vae: AutoencoderKLWan, latents: Tensor, group: RankGroup) -> Iterator[Tensor]:
    """The same by a VAE that decodes one latent frame after the other, with a memory of those before it.

    A tile has all the frames, so none are there before all are.
    """
    tiles, run = list(_tiles(vae, latents)), partial(_with_memory, vae)
    if group.rank > 0:
        _hand_in(run, tiles[group.rank - 1 :: group.world_size], group)
        return
    shape_of = partial(_decoded_shape, vae, int(vae.config["scale_factor_temporal"]))
    yield from _assemble(vae, latents, _decoded(run, tiles, shape_of, group)).clamp_(-1, 1).split(PIECE_FRAMES, dim=2)


def _with_memory(vae: AutoencoderKLWan, tile: Tensor) -> Tensor:
    """The frames of a tile as `vae.decode` makes them, before it clamps them."""
    vae.clear_cache()
    frames, latents = [], vae.post_quant_conv(tile)
    for number, latent in enumerate(latents.split(1, dim=2)):
        vae._conv_idx = [0]
        memory = {"feat_cache": vae._feat_map, "feat_idx": vae._conv_idx}
        frames.append(vae.decoder(latent, **memory, first_chunk=number == 0))
    vae.clear_cache()
    return torch.cat(frames, dim=2)


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


def _scale(vae: TiledVae) -> int:
    """The pixels of a latent, in height and in width."""
    assert vae.spatial_compression_ratio is not None
    return vae.spatial_compression_ratio


def _is_tiled(vae: TiledVae, slab: Tensor) -> bool:
    sides = zip(slab.shape[-2:], (vae.tile_sample_min_height, vae.tile_sample_min_width), strict=True)
    return vae.use_tiling and any(side > most // _scale(vae) for side, most in sides)


def _tiles(vae: TiledVae, slab: Tensor) -> Iterator[Tensor]:
    """The overlapping tiles of a slab, row by row, in the order in which the VAE decodes them."""
    if not _is_tiled(vae, slab):
        yield slab
        return
    scale = _scale(vae)
    height, width = int(vae.tile_sample_min_height) // scale, int(vae.tile_sample_min_width) // scale
    tops, lefts = _corners(vae, slab)
    for top in tops:
        for left in lefts:
            yield slab[:, :, :, top : top + height, left : left + width]


def _corners(vae: TiledVae, slab: Tensor) -> tuple[range, range]:
    """Where the rows and the columns of tiles begin, in latents."""
    scale = _scale(vae)
    down, right = int(vae.tile_sample_stride_height) // scale, int(vae.tile_sample_stride_width) // scale
    return range(0, slab.shape[3], down), range(0, slab.shape[4], right)


def _assemble(vae: TiledVae, slab: Tensor, decoded: Iterator[Tensor]) -> Tensor:
    """A slab's frames of its decoded tiles, each blended with the one above it, and then with the one before it."""
    if not _is_tiled(vae, slab):
        return next(decoded)
    down, right = int(vae.tile_sample_stride_height), int(vae.tile_sample_stride_width)
    tops, lefts = _corners(vae, slab)
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for _ in tops:
        row = [next(decoded) for _ in lefts]
        for upper, tile in zip(above, row, strict=False):  # the first row has none above it
            blend(upper, tile, int(vae.tile_sample_min_height) - down, dim=3)
        for before, tile in pairwise(row):
            blend(before, tile, int(vae.tile_sample_min_width) - right, dim=4)
        rows.append(torch.cat([tile[:, :, :, :down, :right] for tile in row], dim=4))
        above = row
    height, width = (side * _scale(vae) for side in slab.shape[3:])
    return torch.cat(rows, dim=3)[:, :, :, :height, :width]


def blend(before: Tensor, after: Tensor, overlap: int, dim: int) -> None:
    """Have the first `overlap` rows of `after` along `dim` go over, evenly, from the last of `before`: in place.

    What `blend_v`, `blend_h` and `blend_t` of the VAE do row by row; a piece may be shorter than the overlap.
    """
    overlap = min(before.shape[dim], after.shape[dim], overlap)
    falling = torch.arange(overlap, 0, -1, dtype=torch.float32, device=after.device) / overlap
    shape = [-1 if each == dim else 1 for each in range(after.ndim)]
    last = before.narrow(dim, before.shape[dim] - overlap, overlap)
    after.narrow(dim, 0, overlap).lerp_(last, falling.to(after.dtype).view(shape))


def _decoded(
    run: Run, tiles: list[Tensor], shape_of: Callable[[Tensor], tuple[int, ...]], group: RankGroup
) -> Iterator[Tensor]:
    """On rank 0: every tile, in order. Of P tiles it decodes the last, and then takes the others from their ranks."""
    num_ranks = group.world_size
    for first in range(0, len(tiles), num_ranks):
        turn = tiles[first : first + num_ranks]
        own = [run(tile) for tile in turn[num_ranks - 1 :]]
        for rank, tile in enumerate(turn[: num_ranks - 1], start=1):
            yield group.receive(rank, shape_of(tile), tile.dtype)
        yield from own


def _hand_in(run: Run, tiles: list[Tensor], group: RankGroup) -> None:
    """On the other ranks: decode one's own tiles; each is on its way to rank 0 while the next is decoded."""
    sent: Callable[[], None] | None = None
    for tile in tiles:
        frames = run(tile)
        if sent:
            sent()
        sent = group.send(frames)
    if sent:
        sent()


def _decoded_shape(vae: TiledVae, temporal: int, tile: Tensor) -> tuple[int, ...]:
    batch, _, frames, height, width = tile.shape
    scale = _scale(vae)
    return batch, vae.config["out_channels"], (frames - 1) * temporal + 1, height * scale, width * scale
