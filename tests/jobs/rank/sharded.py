"""What the ranks of the tests do with a pipeline whose weights are split over them."""

from unittest.mock import patch

import torch
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor

from caching.engine import Engine
from caching.recipe.recipe import recipe
from jobs.rank.load import load_pipeline
from jobs.rank.offload import on_device, pin
from jobs.rank.renderer import Prompt, Renderer
from tests.jobs.rank.test_layouts import METHODS, SAMPLING
from tests.parallel.small_model import own_bytes
from tests.parallel.work import SeenCollectives

PROMPT = "a cat walks on grass"


def latents(group, directory, names, split, fp8=False):
    """Final latents of each method, the encoded prompt, and the rows and details of the counter with what was seen."""
    ranks = group if split else None
    pipeline = load_pipeline(str(directory), dtype="float32", device="cpu", ranks=ranks, fp8=fp8)
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    results = {}
    for name in names:
        if group is not None:
            group.counter.clear()
        with SeenCollectives() as seen:
            prompt = renderer.encode(PROMPT)
            renderer.use(recipe(name, **METHODS.get(name, {})))
            sampled = renderer.denoise(Prompt(cond=prompt.cond), SAMPLING)
        booked = (group.counter.rows(), group.counter.details()) if group is not None else ([], [])
        results[name] = sampled, prompt, *booked, seen.calls
    return results


def compiled(group, directory, name):
    """Final latents with blocks as they are and with compiled ones, and how often dynamo broke a graph or made one."""
    pipeline = load_pipeline(str(directory), dtype="float32", device="cpu", ranks=group)
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    prompt, results = renderer.encode(PROMPT), []
    for compiler in (None, "eager"):
        renderer.release()
        renderer.engine = Engine(pipeline.transformer, recipe(name, interval=3), group, compiler=compiler)
        results.append(renderer.denoise(prompt, SAMPLING))
    return *results, sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"]


def offloaded(group, directory):
    """The prompt before, and after the language model was pinned and elsewhere; the kinds of device that it was on.

    And whether what was pinned, by a copy in place of that, is what came back.
    """
    pipeline = load_pipeline(str(directory), dtype="float32", device="cpu", ranks=group, offload=True)
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    before = renderer.encode(PROMPT)
    tensors = [*pipeline.text_encoder.parameters(), *pipeline.text_encoder.buffers()]
    unpinned = {own_memory(each) for each in tensors}
    with patch.object(torch.Tensor, "pin_memory", torch.Tensor.clone):
        pin(pipeline.text_encoder)
    memories = [own_memory(each) for each in tensors]
    assert not unpinned.intersection(memories)
    with on_device(pipeline.text_encoder, torch.device("meta")):
        there = {each.device.type for each in [*pipeline.text_encoder.parameters(), *pipeline.text_encoder.buffers()]}
    after = renderer.encode(PROMPT)
    tensors = [*pipeline.text_encoder.parameters(), *pipeline.text_encoder.buffers()]
    return before, after, there, memories == [own_memory(each) for each in tensors]


def own_memory(tensor):
    """Where this rank keeps a tensor."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()


def allocated(group, directory, fp8=False):
    """Bytes of each model, as loaded and after it ran once."""
    pipeline = load_pipeline(str(directory), dtype="float32", device="cpu", ranks=group, fp8=fp8)
    models = {name: getattr(pipeline, name) for name in ("transformer", "text_encoder", "text_encoder_2", "vae")}
    loaded = {name: own_bytes(model) for name, model in models.items()}
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    prompt = renderer.encode(PROMPT)
    renderer.use(recipe("full"))
    renderer.denoise(prompt, SAMPLING)
    return loaded, {name: own_bytes(model) for name, model in models.items()}
