"""Decoding by several ranks gives the frames that the VAE's own tiled decoding gives, in order."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo15, AutoencoderKLWan
from torch.utils._python_dispatch import TorchDispatchMode

from parallel.single import SingleGroup
from parallel.tiling import blend
from parallel.vae import decode, decode_all_frames, decode_frame_by_frame
from tests.parallel.gang import Gang

pytestmark = pytest.mark.timeout(200)

# Of values from -1 to 1: CPUs without AVX-512 round a convolution of fewer frames in another way.
ROUNDING = 1e-5

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
    return list(decode(vae, latents(size), group)), group.counter.details()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_process_decodes_in_pieces_what_it_decodes_at_once(size):
    pieces = list(decode(make_vae(), latents(size), SingleGroup()))
    torch.testing.assert_close(torch.cat(pieces, dim=2), reference(size), rtol=0, atol=ROUNDING)
    assert all(piece.shape[2] for piece in pieces)


def remembering(**settings: Any) -> AutoencoderKLWan:
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **settings)
    side = 4 * vae.spatial_compression_ratio
    vae.enable_tiling(side, side, 3 * side // 4, 3 * side // 4)
    return vae.eval()


@pytest.mark.parametrize("size", [(2, 4, 4), (6, 9, 4), (3, 7, 9)], ids=str)
@pytest.mark.parametrize(
    "settings",
    [{}, {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}],
    ids=["pixels", "patches"],
)
def test_one_that_remembers_frames_is_decoded_in_tiles_as_by_itself(settings, size):
    torch.manual_seed(0)
    vae = remembering(**settings)
    with torch.no_grad():
        expected = vae.decode(latents(size)).sample
    pieces = list(decode_frame_by_frame(vae, latents(size), SingleGroup()))
    torch.testing.assert_close(torch.cat(pieces, dim=2), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("size", [(2, 4, 4), (5, 9, 4), (3, 7, 9)], ids=str)
def test_one_that_decodes_all_frames_at_once_is_decoded_in_tiles_as_by_itself(size):
    torch.manual_seed(0)
    channels: Any = (8, 8, 8, 8, 8)  # which diffusers declares as one
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=channels, layers_per_block=1).eval()
    vae.enable_tiling(64, 64, 4, 4)
    with torch.no_grad():
        expected = vae.decode(latents(size)).sample
    pieces = list(decode_all_frames(vae, latents(size), SingleGroup()))
    torch.testing.assert_close(torch.cat(pieces, dim=2), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("dim, name", [(2, "blend_t"), (3, "blend_v"), (4, "blend_h")])
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.bfloat16, 1 / 64), (torch.float16, 1 / 512)])
def test_tiles_go_over_into_each_other_as_by_the_vae(dim, name, dtype, atol):
    """Overlaps that are no power of two, and pieces that are shorter than the overlap."""
    for overlap, lengths in ((4, (6, 6)), (5, (7, 9)), (64, (64, 64)), (5, (6, 3)), (5, (2, 6)), (4, (1, 1))):
        before, after = (torch.rand(shape(dim, length)).mul(2).sub(1).to(dtype) for length in lengths)
        expected = getattr(make_vae(), name)(before, after.clone(), overlap)
        blend(before, after, overlap, dim)
        torch.testing.assert_close(after, expected, rtol=0, atol=atol)


def shape(dim: int, length: int) -> list[int]:
    return [length if each == dim else size for each, size in enumerate((1, 3, 2, 3, 4))]


def test_blending_is_a_few_launches_an_edge_at_full_size():
    """Row by row they are 127,000 at 720x1280x129."""
    with torch.device("meta"):
        vae, video = AutoencoderKLHunyuanVideo().eval(), torch.empty(1, 16, 33, 90, 160)
    vae.enable_tiling()
    vae.decoder.forward = lambda tile: torch.empty(1, 3, 4 * tile.shape[2] - 3, *(8 * side for side in tile.shape[3:]))
    with torch.device("meta"), Launches() as launches:
        num_frames = sum(piece.shape[2] for piece in decode(vae, video, SingleGroup()))
    num_tiles, num_edges = 11 * 4 * 7, 11 * (3 * 7 + 4 * 6) + 10
    assert num_frames == 129
    assert launches.num < 4 * num_edges + 3 * num_tiles


class Launches(TorchDispatchMode):
    """Counts the operations that are more than another view of what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += not func.is_view
        return func(*args, **(kwargs or {}))


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
