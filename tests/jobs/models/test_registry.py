"""Families of models: each says of its pipeline what loading and rendering have to know."""

import inspect

import diffusers
import pytest
from diffusers import DiffusionPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

from jobs.models.family import Sampling
from jobs.models.hunyuan_video import DEFAULT_TEMPLATE_TAIL, PROMPT_TOKENS
from jobs.models.registry import FAMILIES, family_of
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_names_a_pipeline_of_diffusers_and_components_of_it(name):
    family, components = FAMILIES[name], inspect.signature(getattr(diffusers, name)).parameters
    assert family.pipeline == name
    settings = {name for name, each in components.items() if each.annotation in (bool, float | None)}
    named = {*family.transformers, "vae", "scheduler", *family.text_encoders, *family.tokenizers}
    assert named == components.keys() - settings


def test_a_pipeline_is_of_the_family_of_its_class_or_of_what_that_derives_from():
    pipeline = build_tiny_pipeline()
    assert family_of(pipeline).pipeline == "HunyuanVideoPipeline"
    pipeline.__class__ = type("Mine", (type(pipeline),), {})
    assert family_of(pipeline).pipeline == "HunyuanVideoPipeline"


def test_a_pipeline_of_no_family_is_named():
    with pytest.raises(ValueError, match="renders with DiffusionPipeline; known: HunyuanVideoPipeline, WanPipeline"):
        family_of(DiffusionPipeline())


def test_what_hunyuan_video_takes_of_a_prompt_is_what_diffusers_says():
    signature = inspect.signature(diffusers.HunyuanVideoPipeline.encode_prompt)
    assert signature.parameters["max_sequence_length"].default == PROMPT_TOKENS
    assert DEFAULT_PROMPT_TEMPLATE["template"].endswith("\n\n{}<|eot_id|>") and DEFAULT_TEMPLATE_TAIL == 1


def test_the_files_and_the_loaded_pipeline_agree_on_the_tokens_of_a_size():
    pipeline = build_tiny_pipeline()
    family = family_of(pipeline)
    numbers = family.numbers(dict(pipeline.transformer.config), dict(pipeline.vae.config))
    _, channels, frames, height, width = family.latent_shape(pipeline, Sampling(seed=0, **SIZE, steps=8, guidance=6.0))
    side = numbers.patch
    assert channels == numbers.latent_channels
    assert numbers.grid(**SIZE) == (frames // numbers.patch_t, height // side, width // side)
