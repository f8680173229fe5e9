"""A tiny HunyuanVideo transformer with weights of a size that makes its blocks matter."""

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from caching.recipe.recipe import RECIPES, recipe

GRID = (4, 4, 6)
JOINT_RECIPES = sorted(name for name, method in RECIPES.items() if not method.needs_cross_attention)
SMALL_RECIPES = RECIPES | {"resca": recipe("resca", clusters=16)}  # for models of few tokens


def make_transformer(seed: int = 0) -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(seed)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return transformer.eval()


@pytest.fixture
def transformer():
    return make_transformer()


@pytest.fixture
def sample():
    return torch.randn(1, 4, GRID[0], 2 * GRID[1], 2 * GRID[2], generator=torch.Generator().manual_seed(1))


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    mask = torch.zeros(1, 9)
    mask[:, :5] = 1
    return dict(
        timestep=torch.tensor([700.0]),
        encoder_hidden_states=torch.randn(1, 9, 16, generator=generator),
        encoder_attention_mask=mask,
        pooled_projections=torch.randn(1, 8, generator=generator),
        guidance=torch.tensor([6000.0]),
    )
