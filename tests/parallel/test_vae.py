"""Decoding by several ranks gives the frames that the VAE's own tiled decoding gives, in order."""

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo

from parallel.single import SingleGroup
from parallel.vae import decode
from tests.parallel.gang import Gang

pytestmark = pytest.mark.timeout(200)

# Latent frames, height and width, for tiles of 4 frames of 4 x 4: no tiling at all, in time only, in space only, in
# both; with borders that tiles overhang, and one frame too many for the last slab of time.
SIZES = [(2, 3, 4), (9, 4, 4), (3, 5, 9), (8, 7, 6), (7, 4, 9), (1, 6, 6)]


def make_vae() -> AutoencoderKLHunyuanVideo:
    """Random weights; 2 x 2 x 4 compression, so that tiles of 8 x 8 pixels and 16 frames are small."""
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(4, 8, 8),
        down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_compression_ratio=4,
        mid_block_add_attention=True,
    )
    vae.enable_tiling(
        tile_sample_min_height=16,
        tile_sample_min_width=16,
        tile_sample_stride_height=12,
        tile_sample_stride_width=12,
    )
    return vae.eval()


def latents(size: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def reference(size: tuple[int, int, int]) -> torch.Tensor:
    return make_vae().decode(latents(size)).sample


def decode_by_rank(group, size):
    """The pieces that a rank gets, and the counter's details."""
    group.counter.clear()
    group.mark("decode")
    vae = make_vae()
    pieces = list(decode(vae, latents(size), group))
    assert "forward" not in vae.decoder.__dict__
    return pieces, group.counter.details()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_process_decodes_in_pieces_what_it_decodes_at_once(size):
    pieces = list(decode(make_vae(), latents(size), SingleGroup()))
    assert torch.equal(torch.cat(pieces, dim=2), reference(size))
    assert all(piece.shape[2] for piece in pieces)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ranks_decode_what_one_process_decodes(gang: Gang, size):
    (pieces, sent), *others = gang.run(decode_by_rank, size)
    torch.testing.assert_close(torch.cat(pieces, dim=2), reference(size), rtol=0, atol=1e-4)
    assert sent == []
    assert all(pieces == [] for pieces, _ in others)


def test_every_rank_decodes_its_share(gang: Gang):
    outputs = gang.run(decode_by_rank, (8, 7, 6))
    num_tiles = 3 * 3 * 2  # starting at frames 0, 3, 6, rows 0, 3, 6 and columns 0, 3
    ranks = gang.layout.world_size
    for rank, (_, details) in enumerate(outputs[1:], start=1):
        assert [row["calls"] for row in details] == [len(range(rank - 1, num_tiles, ranks))]
        assert all(row["bytes_sent"] for row in details)
