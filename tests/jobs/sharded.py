"""What the ranks of the tests do with a pipeline whose weights are split over them."""

from caching.recipe import recipe
from jobs.load import load_pipeline
from jobs.pipeline import Prompt, Renderer
from tests.jobs.test_layouts import METHODS, SAMPLING
from tests.parallel.small_model import own_bytes
from tests.parallel.work import SeenCollectives

PROMPT = "a cat walks on grass"


def latents(group, directory, names, split):
    """Final latents of each method, the encoded prompt, and the rows and details of the ledger with what was seen."""
    pipeline = load_pipeline(str(directory), dtype="float32", device="cpu", ranks=group if split else None)
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    results = {}
    for name in names:
        if group is not None:
            group.ledger.clear()
        with SeenCollectives() as seen:
            prompt = renderer.encode(PROMPT)
            renderer.use(recipe(name, **METHODS.get(name, {})))
            sampled = renderer.denoise(Prompt(tokens=prompt.tokens, pooled=prompt.pooled), SAMPLING)
        booked = (group.ledger.rows(), group.ledger.details()) if group is not None else ([], [])
        results[name] = sampled, prompt, *booked, seen.calls
    return results


def allocated(group, directory):
    """Bytes of each model, as loaded and after it ran once."""
    pipeline = load_pipeline(str(directory), dtype="float32", device="cpu", ranks=group)
    models = {name: getattr(pipeline, name) for name in ("transformer", "text_encoder", "text_encoder_2", "vae")}
    loaded = {name: own_bytes(model) for name, model in models.items()}
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    prompt = renderer.encode(PROMPT)
    renderer.use(recipe("full"))
    renderer.denoise(prompt, SAMPLING)
    return loaded, {name: own_bytes(model) for name, model in models.items()}
