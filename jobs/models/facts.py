"""What must be known of a model before it is loaded, from the files of a diffusers directory or hub id."""

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from jobs.errors import BadInput
from jobs.models.demos import DEMOS
from jobs.models.directory import (
    INDEX,
    brings_its_class,
    check_classes,
    check_configs,
    check_directory,
    components_of,
    library_of,
    models_of,
    read_configs,
    read_family,
    read_json,
    transformers_of,
)
from jobs.models.family import MOST_TOKENS, Family, GenerationDefaults
from jobs.models.hub import HUB_ID, download, repository_files
from jobs.models.numbers import Numbers
from jobs.models.revision import earlier_revision, revision_of
from jobs.models.weights import Weights, check_names, files_in, names_in_use, read_weights, stored_dtype
from jobs.store.documents import first_problem


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Numbers):
    """The numbers of a model that decide what can be rendered, and how to find it again."""

    name: str
    source: str
    family: Family
    revision: str
    dtype: str
    directory: Path
    """Where its small files are on this machine."""
    defaults: GenerationDefaults
    guides: frozenset[str]
    """Those of `GUIDES` that it takes."""
    variant: str | None = None
    """Which of several weights are taken (`fp16`), as diffusers calls it."""
    plans: dict[str, Path] = field(default_factory=dict)
    """Recipes that lie beside the model (`plans/NAME.yaml`), by name."""

    @property
    def earlier_revision(self) -> str | None:
        """What earlier versions called the revision of a local model; None for one of the hub."""
        directory = local_directory(self.source)
        return earlier_revision(directory) if directory else None

    def vae_dtype(self, dtype: str) -> str | None:
        """The number format of the VAE where the model is in `dtype`; None for the same."""
        return self.family.vae_dtypes.get(dtype)

    def check_size(self, height: int, width: int, num_frames: int) -> None:
        """Check a size in pixels and frames. Raises BadInput, naming the nearest valid one, or for too many tokens."""
        nearest = self.nearest(height, width, num_frames)
        if nearest != (height, width, num_frames):
            raise BadInput(
                f"height {height}, width {width}, num_frames {num_frames} do not fit {self.name}: {self.sizes}; "
                f"nearest: height {nearest[0]}, width {nearest[1]}, num_frames {nearest[2]}"
            )
        if (tokens := self.num_tokens(height, width, num_frames)) > MOST_TOKENS:
            raise BadInput(
                f"height {height}, width {width}, num_frames {num_frames} make {tokens} tokens, more than the "
                f"{MOST_TOKENS} that a video may have, as no memory holds them; ask for a smaller or shorter one"
            )


def read_facts(model: str, *, own_code: bool = False, variant: str | None = None) -> ModelFacts:
    """The facts of a demo model, of a local directory, or of a hub id (owner/name or owner/name@revision).

    With `own_code` the model may bring classes of its own; nothing of them is run here. `variant` names the weights to
    take where a model has several. Of a hub's model only those weights are looked at that are in the cache.

    Raises:
        BadInput: the model cannot be found or read, is not whole, or is of no family that can be rendered.
        InfrastructureError: the hub does not answer, or its cache cannot be used.
    """
    try:
        return _read_facts(model, own_code=own_code, variant=variant)
    except PermissionError as error:
        raise BadInput(f"cannot read model file {error.filename}: {error.strerror}") from error


def _read_facts(model: str, *, own_code: bool, variant: str | None) -> ModelFacts:
    if directory := local_directory(model):
        family = _checked_family(model, directory, own_code=own_code)
        files = {component: files_in(directory / component) for component in models_of(directory, family)}
        _check_names(model, directory, family, variant, files)
        weights = _weights(directory, family, variant)
        check_configs(directory, family)
        source = model if model in DEMOS else str(directory.resolve())
        revision = revision_of(directory, family, [path for each in weights.values() for path in each.files])
        dtype = stored_dtype(weights[transformers_of(directory, family)[0]])
        return _facts(model, source, family, revision, directory, dtype, variant)
    if hub := HUB_ID.fullmatch(model):
        directory = download(hub["name"], hub["revision"])
        family = _checked_family(model, directory, own_code=own_code)
        if files := repository_files(hub["name"], directory.name):
            _check_names(model, directory, family, variant, files)
        _weights(directory, family, variant, is_partial=True)
        return _facts(model, hub["name"], family, directory.name, directory, "bfloat16", variant)
    raise BadInput(f"model {model} is neither {' nor '.join(DEMOS)}, nor a directory, nor a hub id such as owner/name")


def local_directory(model: str) -> Path | None:
    """Where a model's files are, if they are on this machine under that name."""
    if model in DEMOS:
        return DEMOS[model]
    path = os.path.expanduser(model)
    return Path(path) if path and os.path.exists(path) else None


def model_directory(source: str) -> str:
    """What `from_pretrained` takes for a facts' `source`; a demo model is found beside this package on each machine."""
    return str(DEMOS.get(source, source))


def _checked_family(name: str, directory: Path, *, own_code: bool) -> Family:
    """Raises BadInput for what is no pipeline of a family, whole and of the classes that we know."""
    check_directory(name, directory)
    family = read_family(directory, name)
    if obstacle := family.obstacle(read_json(directory / INDEX)):
        raise BadInput(f"model {name} {obstacle}")
    check_classes(name, directory, family)
    if not own_code:
        _refuse_own_code(name, directory, family)
    return family


def _facts(
    name: str, source: str, family: Family, revision: str, directory: Path, dtype: str, variant: str | None
) -> ModelFacts:
    numbers, guides, of_family = _from_configs(directory, family)
    defaults = _read_defaults(directory / "resca.json", of_family)
    return ModelFacts(
        name=name,
        source=source,
        family=family,
        revision=revision,
        variant=variant,
        **vars(numbers),
        guides=guides,
        dtype=defaults.dtype or dtype,
        directory=directory,
        defaults=defaults,
        plans={path.stem: path for path in sorted(directory.glob("plans/*.yaml"))},
    )


def _from_configs(directory: Path, family: Family) -> tuple[Numbers, frozenset[str], GenerationDefaults]:
    """What the configurations of its components say."""
    configs = read_configs(directory, family)
    predicted = configs.loop[family.loop[0]].get("prediction_type", "epsilon")
    if family.predicts_epsilon and predicted != "epsilon":
        raise BadInput(
            f"model directory {directory}: its scheduler's prediction_type is {predicted}; "
            f"of models of {family.pipeline} only those that predict epsilon are rendered"
        )
    try:
        return family.numbers(configs), family.guides(configs), family.defaults(configs)
    except ValidationError as error:
        raise BadInput(f"model directory {directory}: {first_problem(error)}") from error


def _read_defaults(path: Path, of_family: GenerationDefaults) -> GenerationDefaults:
    own = read_json(path) if path.exists() else {}
    try:
        return GenerationDefaults.model_validate(of_family.model_dump() | own)
    except ValidationError as error:
        raise BadInput(f"model file {path}: {first_problem(error)}") from error


def _check_names(
    name: str, directory: Path, family: Family, variant: str | None, files: Mapping[str, Set[str]]
) -> None:
    """Raises BadInput if no component has the variant, or one has no weights; `files` are the names in each folder."""
    names = {
        component: names_in_use(files.get(component, set()), library_of(directory / component), variant)
        for component in models_of(directory, family)
    }
    if variant and not any(each.variant for each in names.values()):
        raise BadInput(f"model {name} has no weights of the variant {variant}; leave out --variant, or correct it")
    for component, each in names.items():
        check_names(f"model {name}", component, each, files.get(component, set()))


def _weights(
    directory: Path, family: Family, variant: str | None, *, is_partial: bool = False
) -> Mapping[str, Weights]:
    """The weights of each component. Raises BadInput naming a file that is missing or not whole."""
    folders = {component: directory / component for component in models_of(directory, family)}
    return {
        component: read_weights(folder, library_of(folder), variant, is_partial=is_partial)
        for component, folder in folders.items()
    }


def _refuse_own_code(name: str, directory: Path, family: Family) -> None:
    for component in components_of(directory, family):
        if brings_its_class(directory / component):
            raise BadInput(f"model {name} needs code of its own for its {component}: --trust-remote-code would run it")
