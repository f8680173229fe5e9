"""Full-size models on the meta device: what is counted of a step is what the bare model counts."""

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from caching.recipe.recipe import RECIPES, recipe
from jobs.measure.full_size import DTYPE, read_request
from jobs.models.full_size import FULL_SIZE
from jobs.options.measure import CommOptions, FlopsOptions
from parallel.layout import Layout
from tests.caching.models.test_wan import make_pipeline
from tests.caching.test_guidance import generate

GUIDED = ["wan", "wan2.2", "wan2.2-ti2v", "hunyuanvideo-1.5"]
EPSILON = ["dit", "pixart", "latte"]  # which are guided, too


class AllValid(TorchFunctionMode):
    """Masks have no values on the meta device: here they keep everything, and their inverses keep nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inverses: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in place of each function."""
        if func is Tensor.__bool__:
            return True
        output: Any = None
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            is_inverse = any(args[1] is inverse for inverse in self.inverses)
            return args[0][:0] if is_inverse else args[0]
        output = func(*args, **(kwargs or {}))
        if func is Tensor.__invert__:
            self.inverses.append(output)
        return output


def inputs_of(name: str, config: Any, num_text_tokens: int) -> dict[str, Tensor]:
    """What the pipeline hands its transformer beside the latents, without padding."""
    prompt = {"timestep": torch.ones(1), "encoder_hidden_states": torch.ones(1, num_text_tokens, 4096)}
    if name == "wan2.2-ti2v":
        return prompt | {"timestep": torch.ones(1, 31 * 22 * 40)}
    if name != "hunyuanvideo-1.5":
        return prompt
    return prompt | {
        "encoder_hidden_states": torch.ones(1, num_text_tokens, config.text_embed_dim),
        "encoder_attention_mask": torch.ones(1, num_text_tokens),
        "encoder_hidden_states_2": torch.ones(1, 0, config.text_embed_2_dim),
        "encoder_attention_mask_2": torch.ones(1, 0),
        "image_embeds": torch.zeros(1, 0, config.image_embed_dim),
    }


def bare_flops(name: str) -> float:
    """Of all passes of a step, by the model of diffusers itself."""
    size = FULL_SIZE[name]
    frames, height, width = size.grid(size.height, size.width, size.num_frames)
    with torch.device("meta"), torch.no_grad(), AllValid(), FlopCounterMode(display=False) as counter:
        kind = getattr(diffusers, size.config["_class_name"])
        config = {name: value for name, value in size.config.items() if name != "expand_timesteps"}
        transformer = torch.nn.Module.to(kind.from_config(config).eval(), DTYPE)
        patch = transformer.config.patch_size
        side = patch if isinstance(patch, int) else patch[-1]
        latents = torch.empty(1, transformer.config.in_channels, frames, side * height, side * width, dtype=DTYPE)
        for length in size.text_tokens:
            given = inputs_of(name, transformer.config, length)
            transformer(latents, **{key: value.to(DTYPE) for key, value in given.items()})
    return counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDED)
def test_a_dense_step_costs_what_the_bare_model_costs(name):
    request = read_request(FlopsOptions(model=name))
    assert request.count(RECIPES["full"], num_steps=1).flops == pytest.approx(bare_flops(name), rel=1e-6)


def bare_flops_of_epsilon(name: str) -> float:
    """Of a step, whose passes are a doubled batch, by the model of diffusers itself."""
    size = FULL_SIZE[name]
    frames, height, width = size.grid(size.height, size.width, size.num_frames)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        transformer = getattr(diffusers, size.config["_class_name"]).from_config(size.config).eval().to(DTYPE)
        spatial = (2 * height, 2 * width)
        latents = torch.empty(2, 4, *([frames] if name == "latte" else []), *spatial, dtype=DTYPE)
        given: dict[str, Tensor] = {"timestep": torch.ones(2)}
        if name == "dit":
            given["class_labels"] = torch.ones(2, dtype=torch.long)
        else:
            given["encoder_hidden_states"] = torch.ones(2, size.num_text_tokens, 4096, dtype=DTYPE)
        transformer(latents, **given)
    return counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("name", EPSILON)
def test_a_dense_step_of_epsilon_costs_what_the_bare_model_costs(name):
    """Latte's repeats the text for each frame before it is projected, 1% of all, which here is done once."""
    request = read_request(FlopsOptions(model=name))
    counted = request.count(RECIPES["full"], num_steps=1).flops
    assert counted == pytest.approx(bare_flops_of_epsilon(name), rel=0.01 if name == "latte" else 1e-6)


def test_a_model_with_guidance_has_two_passes_and_one_without_has_one():
    assert {name: len(size.text_tokens) for name, size in FULL_SIZE.items()} == {
        "hunyuanvideo": 1,
        "flux": 1,
        **dict.fromkeys([*GUIDED, *EPSILON, "hidream"], 2),
    }


def test_mlperf_is_one_word():
    request = read_request(FlopsOptions(preset="mlperf"))
    assert (request.model, request.num_steps, request.grid) == ("wan2.2", 20, (21, 45, 80))
    assert read_request(CommOptions(preset="mlperf")).layout == Layout(ulysses=8)


@pytest.mark.parametrize(("steps", "change"), [(20, 7), (9, 3), (1, None)])
def test_the_second_model_takes_over_where_it_does_in_the_pipeline(steps, change):
    boundary, calls = FULL_SIZE["wan2.2"].boundary, []
    assert boundary is not None
    pipeline = make_pipeline(boundary_ratio=boundary.level)
    pipeline.scheduler = boundary.scheduler()
    for number, transformer in enumerate([pipeline.transformer, pipeline.transformer_2]):
        transformer.register_forward_hook(lambda *_, number=number: calls.append(number))
    generate(pipeline, num_inference_steps=steps, guidance_scale=1.0)
    assert boundary.changes(steps) == (() if change is None else (change,))
    assert calls == [0] * (change or steps) + [1] * (steps - (change or steps))


def test_fewer_steps_change_earlier():
    request = read_request(FlopsOptions(model="wan2.2"))
    assert request._changes(recipe("steps", interval=6), 50) == (3,)
