"""What of a model and of a video decides seconds: widths and blocks, tokens, and the tiles of its VAE."""

from dataclasses import dataclass, fields, replace

from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.models.facts import ModelFacts, read_facts
from jobs.models.family import Configs, Family
from jobs.models.full_size import FULL_SIZE, Size
from jobs.models.numbers import Numbers
from jobs.models.registry import FAMILIES
from jobs.predict.counted import DECODE_FLOPS
from jobs.predict.decoding import Decoder
from jobs.request.guidance import num_passes, sampling_by_default
from jobs.store.medium import VIDEO

BYTES = {"float32": 4}  # of a number; 2 in the other formats


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model."""

    name: str
    numbers: Numbers
    text_tokens: int
    """That every rank holds beside its piece of the video; 0 where the video attends to the text apart from itself."""
    cross_attention: bool = False
    num_passes: int = 1
    num_transformers: int = 1
    size: tuple[int, int, int] = (0, 0, 0)
    """Height, width and frames, where no others are asked for."""
    number_bytes: int = 2
    """Of what ranks exchange."""
    decoder: Decoder | None = None
    """With the FLOPs of a pixel of a tile; 1 for a VAE that nobody has counted, and then a profile is calibrated."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """What is asked for."""

    height: int
    width: int
    num_frames: int
    num_tokens: int
    steps: int
    method: Recipe

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.height * self.width * self.num_frames


def shape_of(model: str) -> ModelShape:
    """A full-size model by name, or one whose files are at hand. Raises BadInput for what is neither, or no video."""
    if model not in FULL_SIZE:
        return _of_files(model)
    if model not in DECODE_FLOPS:
        raise BadInput(f"{model} is not predicted, as its decoding is not counted; known: {', '.join(DECODE_FLOPS)}")
    size = FULL_SIZE[model]
    family = next(each for each in FAMILIES.values() if _is_of(each, size))
    numbers = family.numbers(Configs(transformer=size.config))
    return ModelShape(
        name=model,
        numbers=replace(numbers, spatial=size.side // numbers.patch),
        text_tokens=0 if size.cross_attention else size.num_text_tokens,
        cross_attention=size.cross_attention,
        num_passes=len(size.text_tokens),
        num_transformers=2 if size.boundary else 1,
        size=(size.height, size.width, size.num_frames),
        decoder=Decoder.of(family.pipeline, DECODE_FLOPS[model] * _slowness(family)),
    )


def _slowness(family: Family) -> int:
    """Of a VAE that runs in float32: tensor cores have half the FLOP/s in TF32."""
    return 2 if family.vae_dtypes.get("bfloat16") == "float32" else 1


def _is_of(family: Family, size: Size) -> bool:
    return family.classes["transformer"] == size.config["_class_name"] if "transformer" in family.classes else False


def _of_files(model: str) -> ModelShape:
    facts = read_facts(model)
    if facts.family.medium is not VIDEO:
        raise BadInput(f"{model} makes images; what is predicted are videos")
    return shape_of_facts(facts, num_passes=num_passes(facts.family, sampling_by_default(facts)))


def shape_of_facts(facts: ModelFacts, num_passes: int, dtype: str | None = None) -> ModelShape:
    """That of a model whose files are at hand, in its own number format or another; its VAE has not been counted."""
    family, defaults = facts.family, facts.defaults
    return ModelShape(
        name=facts.name,
        numbers=Numbers(**{each.name: getattr(facts, each.name) for each in fields(Numbers)}),
        text_tokens=0,  # a prompt's are few beside a video's, and another number for each
        cross_attention=family.cross_attention,
        num_passes=num_passes,
        size=(defaults.height, defaults.width, defaults.num_frames),
        number_bytes=BYTES.get(dtype or facts.dtype, 2),
        decoder=Decoder.of(family.pipeline, 1.0),
    )


def video_of(shape: ModelShape, method: Recipe, *, height: int, width: int, num_frames: int, steps: int) -> Video:
    """Raises BadInput for a size that the model does not have."""
    numbers = shape.numbers
    nearest = numbers.nearest(height, width, num_frames)
    if nearest != (height, width, num_frames):
        raise BadInput(
            f"height {height}, width {width}, num_frames {num_frames} do not fit {shape.name}; nearest: height "
            f"{nearest[0]}, width {nearest[1]}, num_frames {nearest[2]}"
        )
    tokens = numbers.num_tokens(height, width, num_frames)
    return Video(height=height, width=width, num_frames=num_frames, num_tokens=tokens, steps=steps, method=method)
