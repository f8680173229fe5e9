"""VAE decoding by all ranks: the tiles that diffusers' video VAEs decode one by one are dealt out in turns.

Legend: B batch, C latent channels, F H W latent frames, height and width, f H' W' frames, height and width of a video,
P ranks.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo15, AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from parallel.rank_group import RankGroup
from parallel.tiling import Tiling, blend, tiling_by_overlap, tiling_of

PIECE_FRAMES = 16  # of what is decoded at once, that are handed on at a time
Run = Callable[[Tensor], Tensor]  # a tile of latents to its frames


@torch.no_grad()
def decode(vae: AutoencoderKLHunyuanVideo, latents: Tensor, group: RankGroup) -> Iterator[Tensor]:
    """Frames `[B, 3, f, H', W']` in order, piece after piece of time; joined they are what `vae.decode` gives.

    Latents are `[B, C, F, H, W]`, already divided by the scaling factor, and the same on every rank. Only rank 0 gets
    pieces; the others get none, but have to run the iterator to its end. Tile i is decoded by rank (i + 1) % P and sent
    to rank 0, which blends tiles while the others go on, and so gets none of a last, short turn.
    """
    slabs, tiling = list(_slabs(vae, latents)), tiling_of(vae)
    tiles = [tile for slab in slabs for tile in tiling.tiles(slab)]

    def run(tile: Tensor) -> Tensor:
        return vae.decoder(vae.post_quant_conv(tile))

    if group.rank > 0:
        _hand_in(run, tiles[group.rank - 1 :: group.world_size], group)
        return
    decoded = _decoded(run, tiles, tiling, group)
    overlap = int(vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames)
    last: Tensor | None = None
    for slab in slabs:
        frames = tiling.joined(slab, decoded)
        if last is None:
            yield frames[:, :, : vae.tile_sample_stride_num_frames + 1] if len(slabs) > 1 else frames
        else:
            frames = frames[:, :, 1:]
            blend(last, frames, overlap, dim=2)
            yield frames[:, :, : vae.tile_sample_stride_num_frames]
        last = frames


@torch.no_grad()
def decode_frame_by_frame(vae: AutoencoderKLWan, latents: Tensor, group: RankGroup) -> Iterator[Tensor]:
    """The same by a VAE that decodes one latent frame after the other, with a memory of those before it."""
    for frames in _at_once(partial(_with_memory, vae), latents, tiling_of(vae), group):
        yield from unpatchify(frames, vae.config["patch_size"] or 1).clamp_(-1, 1).split(PIECE_FRAMES, dim=2)


@torch.no_grad()
def decode_all_frames(vae: AutoencoderKLHunyuanVideo15, latents: Tensor, group: RankGroup) -> Iterator[Tensor]:
    """The same by a VAE that decodes all frames of a tile at once."""
    for frames in _at_once(vae.decoder, latents, tiling_by_overlap(vae), group):
        yield from frames.split(PIECE_FRAMES, dim=2)


def _at_once(run: Run, latents: Tensor, tiling: Tiling, group: RankGroup) -> Iterator[Tensor]:
    """On rank 0 all frames of a video, as a tile has them all; on the others nothing."""
    tiles = list(tiling.tiles(latents))
    if group.rank > 0:
        _hand_in(run, tiles[group.rank - 1 :: group.world_size], group)
        return
    yield tiling.joined(latents, _decoded(run, tiles, tiling, group))


def _with_memory(vae: AutoencoderKLWan, tile: Tensor) -> Tensor:
    """The frames of a tile as `vae.decode` makes them, before it puts patches together and clamps."""
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


def _decoded(run: Run, tiles: list[Tensor], tiling: Tiling, group: RankGroup) -> Iterator[Tensor]:
    """On rank 0: every tile, in order. Of P tiles it decodes the last, and then takes the others from their ranks."""
    num_ranks = group.world_size
    for first in range(0, len(tiles), num_ranks):
        turn = tiles[first : first + num_ranks]
        own = [run(tile) for tile in turn[num_ranks - 1 :]]
        for rank, tile in enumerate(turn[: num_ranks - 1], start=1):
            yield group.receive(rank, tiling.decoded_shape(tile), tile.dtype)
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
