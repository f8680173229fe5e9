"""The models of a pipeline, built without values and filled from their files, so that none is in memory twice."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from jobs.models.directory import entry_of, library_of
from jobs.models.weights import WeightNames, files_in, names_in_use
from jobs.rank.quantise import as_kept, quantise
from parallel.weights import Stored, fill, stored_tensors

log = logging.getLogger(__name__)


class CannotStream(Exception):
    """Why a model's files are not what its modules hold, so that its own library has to read them."""


def load_component(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    variant: str | None = None,
    split: Callable[[nn.Module], None] | None = None,
    fp8: bool = False,
) -> nn.Module:
    """The model in a folder of a pipeline's directory, for inference.

    Args:
        variant: which of several weights to take, where the folder has it.
        split: what splits the weights of a module on the meta device over ranks, if they are to be.
        fp8: keep the weights of its blocks in 8 bits.

    Raises:
        ValueError: the stored weights do not fit the model.
    """
    split = split or (lambda _: None)
    names = names_in_use(files_in(folder), library_of(folder), variant)
    try:
        model = build(folder, dtype)
        stored = _stored(model, folder, names)
    except CannotStream as reason:
        log.warning("the %s is read whole by from_pretrained: %s", folder.name, reason)
        options = {"dtype": dtype, "use_safetensors": True, "variant": names.variant}
        return place(_class_of(folder).from_pretrained(folder, **options), device, split, fp8)
    if fp8:
        quantise(model)
        stored = as_kept(model, stored)
    split(model)
    fill(model, stored, device)
    return model.eval()


def place(
    model: nn.Module, device: torch.device, split: Callable[[nn.Module], None] | None = None, fp8: bool = False
) -> nn.Module:
    """A model that has been read whole, for inference on the device, or split over the ranks; in 8 bits if asked."""
    if fp8:
        quantise(model)
    if split is not None:
        split(model)
    return model.to(device).eval()


def build(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The model without values; buffers that are not stored with it have theirs. CannotStream if that is not enough."""
    model_class = _class_of(folder)
    with default_dtype(dtype), init_empty_weights(include_buffers=False):
        if issubclass(model_class, PreTrainedModel):
            model = model_class(AutoConfig.from_pretrained(folder, dtype=dtype))
        else:
            model = model_class.from_config(model_class.load_config(folder))
    if not isinstance(model, PreTrainedModel):
        _keep_in_float32(model, set(model._keep_in_fp32_modules or ()))
        return model
    if kept := model._get_dtype_plan(dtype):
        raise CannotStream(f"{', '.join(kept)} stay in float32")
    model.tie_weights()  # without values every module got a parameter of its own
    return model


def _keep_in_float32(model: nn.Module, parts: set[str]) -> None:
    """Have the weights of parts with these names in float32, whatever the others are in, as diffusers has."""
    for path, module in model.named_modules():
        for name, weight in module._parameters.items():
            if weight is not None and parts & {*path.split("."), name}:
                module._parameters[name] = nn.Parameter(weight.float(), requires_grad=weight.requires_grad)


def _class_of(folder: Path) -> Any:
    """The class that `model_index.json` names; those of diffusers share no base that can do all that they can."""
    entry = entry_of(folder)
    assert entry is not None
    return getattr({"diffusers": diffusers, "transformers": transformers}[entry[0]], entry[1])


def _stored(model: nn.Module, folder: Path, names: WeightNames) -> dict[str, Stored]:
    """The stored tensors by the model's own names for them."""
    try:
        stored = stored_tensors(folder, names.file, names.index)
    except FileNotFoundError as error:
        raise CannotStream(str(error)) from error
    return _renamed(model, stored) if isinstance(model, PreTrainedModel) else stored


def _renamed(model: PreTrainedModel, stored: dict[str, Stored]) -> dict[str, Stored]:
    """The tensors of a transformers checkpoint under the names of today's classes, without those of other heads."""
    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    names, renamed = model.state_dict(), {}
    for name, place in stored.items():
        name, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, names)
        if converted is not None:
            raise CannotStream(f"{place.name} is stored in another form")
        renamed[name] = place
    return {name: place for name, place in renamed.items() if name in names}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Parameters are made in this number format, as both libraries do when they load."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
