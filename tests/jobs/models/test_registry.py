"""Families of models: each says of its pipeline what loading and rendering have to know."""

import inspect

import diffusers
import pytest
from diffusers import DiffusionPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

from jobs.models import hunyuan_video_15 as hy15
from jobs.models.family import Configs, Sampling
from jobs.models.hunyuan_video import DEFAULT_TEMPLATE_TAIL, PROMPT_TOKENS
from jobs.models.registry import FAMILIES, family_of
from tests.jobs.tiny_hunyuan_video_15 import build_tiny_hunyuan_video_15
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_names_a_pipeline_of_diffusers_and_components_of_it(name):
    family, components = FAMILIES[name], inspect.signature(getattr(diffusers, name)).parameters
    assert family.pipeline == name
    named = {*family.transformers, "vae", *family.loop, *family.text_encoders, *family.tokenizers}
    needed = {name for name, each in components.items() if each.default is inspect.Parameter.empty}
    assert needed <= named <= components.keys() and family.loop[0] == "scheduler"


def test_a_pipeline_is_of_the_family_of_its_class_or_of_what_that_derives_from():
    pipeline = build_tiny_pipeline()
    assert family_of(pipeline).pipeline == "HunyuanVideoPipeline"
    pipeline.__class__ = type("Mine", (type(pipeline),), {})
    assert family_of(pipeline).pipeline == "HunyuanVideoPipeline"


def test_a_pipeline_of_no_family_is_named():
    with pytest.raises(ValueError, match="renders with DiffusionPipeline; known: HunyuanVideoPipeline, "):
        family_of(DiffusionPipeline())


def test_what_hunyuan_video_takes_of_a_prompt_is_what_diffusers_says():
    signature = inspect.signature(diffusers.HunyuanVideoPipeline.encode_prompt)
    assert signature.parameters["max_sequence_length"].default == PROMPT_TOKENS
    assert DEFAULT_PROMPT_TEMPLATE["template"].endswith("\n\n{}<|eot_id|>") and DEFAULT_TEMPLATE_TAIL == 1


def test_what_hunyuan_video_15_takes_of_a_prompt_and_its_sizes_are_what_diffusers_says():
    pipeline = build_tiny_hunyuan_video_15()
    assert (pipeline.tokenizer_max_length, pipeline.tokenizer_2_max_length) == (hy15.PROMPT_TOKENS, hy15.GLYPH_TOKENS)
    for side, size in hy15.SIZES.items():
        assert pipeline.video_processor.calculate_default_height_width(9, 16, side) == size


def test_the_files_and_the_loaded_pipeline_agree_on_the_tokens_of_a_size():
    pipeline = build_tiny_pipeline()
    family = family_of(pipeline)
    transformer, vae = dict(pipeline.transformer.config), dict(pipeline.vae.config)
    numbers = family.numbers(Configs(transformer=transformer, vae=vae))
    _, channels, frames, height, width = family.latent_shape(pipeline, Sampling(seed=0, **SIZE, steps=8, guidance=6.0))
    side = numbers.patch
    assert channels == numbers.latent_channels
    assert numbers.grid(**SIZE) == (frames // numbers.patch_t, height // side, width // side)
