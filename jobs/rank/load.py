"""Loading a pipeline: each model read straight onto its device, whole or this rank's part of it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from caching.models import adapter_for
from jobs.errors import BadInput
from jobs.models.directory import brings_its_class, read_family, transformers_of
from jobs.models.facts import model_directory
from jobs.models.family import Family
from jobs.models.hub import HUB_ID, hub_errors, refusal
from jobs.models.registry import FAMILIES
from jobs.rank.components import load_component, place
from jobs.rank.offload import pin
from parallel.rank_group import RankGroup
from parallel.sharding import shard

Split = Callable[[nn.Module], None]


class Way(TypedDict):
    """How a model is loaded: where to, what splits it over the ranks, and whether its weights are kept in 8 bits."""

    device: torch.device
    split: Split | None
    fp8: bool


def load_pipeline(
    source: str,
    *,
    dtype: str,
    device: str,
    revision: str | None = None,
    variant: str | None = None,
    with_text: bool = True,
    ranks: RankGroup | None = None,
    offload: bool = False,
    own_code: bool = False,
    fp8: bool = False,
) -> DiffusionPipeline:
    """Load a pipeline from `demo`, a directory or the hub.

    Args:
        dtype: the number format; that of the VAE is the family's choice for it.
        variant: which of several weights to take; components without them have their plain ones, as in diffusers.
        with_text: False leaves out the text encoders, where prompts arrive encoded.
        ranks: split the weights of transformers and text encoders over these ranks; all of them call this at once.
        offload: keep text encoders, VAE and transformers that take turns in pinned host memory, but while in use.
        own_code: run the Python files that lie beside the weights, where a model names classes of its own.
        fp8: keep the weights of transformer and text encoders in 8 bits.
    """
    directory = fetch(source, revision=revision, variant=variant, with_text=with_text, own_code=own_code)
    family = read_family(directory, source)
    formats = {"default": getattr(torch, dtype), "vae": getattr(torch, family.vae_dtypes.get(dtype, dtype))}
    waits_on = torch.device("cpu" if offload else device)
    ways = _ways_of_transformers(directory, family, ranks, torch.device(device), waits_on, fp8)
    ways |= {name: Way(device=waits_on, split=_split(ranks), fp8=fp8) for name in family.text_encoders if with_text}
    ways["vae"] = Way(device=waits_on, split=None, fp8=False)
    own = [name for name in ways if brings_its_class(directory / name)]  # only from_pretrained knows how to run it
    models: dict[str, nn.Module] = {}
    for name in (each for each in ways if each not in own):
        number_format = formats.get(name, formats["default"])
        models[name] = load_component(directory / name, dtype=number_format, variant=variant, **ways[name])
    skipped = {} if with_text else dict.fromkeys(_text(family))
    of_own = {"variant": variant} if own else {}  # the others are there already
    pipeline = _pipeline_class(family, device if offload else None).from_pretrained(
        directory, dtype=formats, use_safetensors=True, trust_remote_code=own_code, **of_own, **skipped, **models
    )
    for name in own:
        place(getattr(pipeline, name), **ways[name])
    if family.decodes_tiles:
        pipeline.vae.enable_tiling()
    pipeline.set_progress_bar_config(disable=True)
    _hasten_convolutions(pipeline.vae, device, dtype)
    for name, way in ways.items():
        if way["device"] != torch.device(device):
            pin(getattr(pipeline, name))  # last: what is laid out anew lies elsewhere
    return pipeline


def _ways_of_transformers(
    directory: Path, family: Family, ranks: RankGroup | None, device: torch.device, waits_on: torch.device, fp8: bool
) -> dict[str, Way]:
    """One alone stays on the device, several wait for their turns."""
    names = transformers_of(directory, family)
    way = Way(device=device if len(names) == 1 else waits_on, split=_split(ranks, called_alone), fp8=fp8)
    return dict.fromkeys(names, way)


def called_alone(model: nn.Module) -> list[nn.Module]:
    """The parts of a transformer's blocks that are also called without their block: what TeaCache watches."""
    return adapter_for(model).called_alone


def _split(ranks: RankGroup | None, whole: Callable[[nn.Module], Sequence[nn.Module]] = lambda _: ()) -> Split | None:
    """What splits a model's weights but for the parts that `whole` names, if there are ranks to split them over."""
    return None if ranks is None else lambda model: shard(model, ranks, whole=whole(model))


def _text(family: Family) -> tuple[str, ...]:
    """The components that only the encoding of prompts needs."""
    return *family.text_encoders, *family.tokenizers


def _pipeline_class(family: Family, device: str | None) -> type[DiffusionPipeline]:
    """The family's; with a device, one that runs there, wherever its models wait."""
    pipeline_class = getattr(diffusers, family.pipeline)

    class OffloadedPipeline(pipeline_class):
        @property
        def _execution_device(self) -> torch.device:
            return torch.device(device or "cpu")

    return OffloadedPipeline if device else pipeline_class


def fetch(source: str, *, revision: str | None, variant: str | None, with_text: bool, own_code: bool) -> Path:
    """Where a pipeline's files are: what is not `demo` or a directory is downloaded, or found in the local cache.

    Raises:
        BadInput: it is neither a directory on this machine nor on the hub.
        InfrastructureError: the hub does not answer, or its cache cannot be used.
    """
    directory = Path(model_directory(source))
    if directory.is_dir():
        return directory
    if not HUB_ID.fullmatch(source):
        raise BadInput(f"there is no model directory {source} on this machine: give one that every node sees")
    text = [] if with_text else [name for family in FAMILIES.values() for name in _text(family)]
    skipped = dict.fromkeys(text)  # which family it is, the files will say
    options = {"revision": revision, "variant": variant, "trust_remote_code": own_code}
    try:
        return Path(DiffusionPipeline.download(source, **options, **skipped))
    except hub_errors() as error:
        cause = error.__cause__ if type(error) is OSError else error  # diffusers may put it in words of its own
        if not isinstance(cause, hub_errors()):  # on what the hub has of this model
            raise
        raise refusal(source, revision, cause) from error


def _hasten_convolutions(vae: nn.Module, device: str, dtype: str) -> None:
    """Have a VAE convolve by what is fastest where it will run."""
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        _use_onednn(vae)
    if torch.device(device).type == "cuda":
        _use_cudnn(vae)


def _use_onednn(vae: nn.Module) -> None:
    """Have oneDNN compute every 3-D convolution, channels last: for small ones PyTorch takes a slow kernel of its own.

    Decoding a video of the demo model takes 60% of the time.
    """
    for layer in vae.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            layer._conv_forward = partial(_convolve, layer)


def _use_cudnn(vae: nn.Module) -> None:
    """Have cuDNN try its kernels on each shape and take the fastest, channels last, as its tensor cores want them.

    Of the VAE only, whose tiles have few shapes: the kernels that are tried decide last bits, and so would those of
    latents differ from run to run.
    """
    for layer in vae.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            convolve = partial(_by_the_fastest_kernel, layer._conv_forward)
            layer._conv_forward = convolve  # type: ignore[method-assign]


def _by_the_fastest_kernel(convolve: Callable[..., Tensor], *given: Tensor | None) -> Tensor:
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        return convolve(*given)
    finally:
        torch.backends.cudnn.benchmark = before


def _convolve(layer: torch.nn.Conv3d, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    settings = (layer.padding, layer.stride, layer.dilation, layer.groups)
    return torch.ops.aten.mkldnn_convolution(input, weight, bias, *settings)
