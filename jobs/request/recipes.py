"""Methods by name or from a file, with what the command line says on top."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import yaml
from pydantic import TypeAdapter, ValidationError

from caching.recipe.recipe import RECIPES, Recipe, recipe
from jobs.errors import BadInput
from jobs.options.shared import MethodOptions
from jobs.request.prompts import Item
from jobs.request.tuned import BLOCK, Tuned
from jobs.store.documents import first_problem

SUFFIXES = (".yaml", ".yml", ".json")


def resolve_method(
    name: str,
    options: MethodOptions,
    plans: Mapping[str, Path] = MappingProxyType({}),
    *,
    cross_attention: bool = False,
) -> Recipe:
    """The recipe called `name`, or in the file `name`, with the options that were given. Raises BadInput.

    Args:
        plans: further recipe files by name, those that lie beside a model.
        cross_attention: whether the model has any; without it, methods that cache it are refused.
    """
    method = _find(name, options, plans)
    if method.needs_cross_attention and not cross_attention:
        raise BadInput(
            f"{method.name} caches cross-attention, which this model does not have: its tokens attend to each other "
            "and to the text at once"
        )
    return method


def methods_of(lines: Iterable[Item], plans: Mapping[str, Path], *, cross_attention: bool = False) -> dict[str, Recipe]:
    """The methods that lines of a prompt file name as their own, with their default options.

    Raises BadInput, naming the line, for one that there is not, and for a file.
    """
    methods: dict[str, Recipe] = {}
    for line in lines:
        if line.method is None or line.method in methods:
            continue
        if line.method.endswith(SUFFIXES):
            raise BadInput(f"{line.where}: method {line.method!r} is a file, which only --method takes; name a method")
        try:
            methods[line.method] = resolve_method(line.method, MethodOptions(), plans, cross_attention=cross_attention)
        except BadInput as error:
            raise BadInput(f"{line.where}: {error}") from error
    return methods


def methods_to_name(plans: Mapping[str, Path], *, cross_attention: bool = False) -> dict[str, Recipe]:
    """All that a line may name of a model: what is added to a running batch may name one that nobody has so far."""
    methods: dict[str, Recipe] = {}
    for name in (*RECIPES, *plans):
        with suppress(BadInput):  # It is refused where somebody names it.
            methods[name] = resolve_method(name, MethodOptions(), plans, cross_attention=cross_attention)
    return methods


def _find(name: str, options: MethodOptions, plans: Mapping[str, Path]) -> Recipe:
    if name in plans:
        name = str(plans[name])
    given = options.given()
    if plan := given.pop("plan", None):
        if name != "auto":
            raise BadInput(f"--plan is for the method auto, not for {name}")
        return _find(str(plan), MethodOptions(**given), {})
    if not name.endswith(SUFFIXES):
        try:
            return recipe(name, **given)
        except ValueError as error:
            raise BadInput(str(error)) from error
    if given:
        raise BadInput(f"the recipe {name} has its own settings; leave out --{next(iter(given))} or change the file")
    return read_recipe(Path(name))


def recipe_file(name: str, options: MethodOptions, plans: Mapping[str, Path]) -> Path | None:
    """Where `resolve_method` finds the recipe; None for one that the package brings."""
    return options.plan or plans.get(name) or (Path(name) if name.endswith(SUFFIXES) else None)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML or JSON file: what `Recipe.describe` gives, or less of it. Raises BadInput.

    What `resca tune` says of it there, beside it, is no part of it.
    """
    with _reading(path):
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(said, dict):
            said.pop(BLOCK, None)
        return TypeAdapter(Recipe).validate_python(said)


def read_tuned(path: Path) -> Tuned | None:
    """What a recipe file says of its recipe; None if it says nothing. Raises BadInput."""
    with _reading(path, f"{BLOCK}."):
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Tuned.model_validate(said[BLOCK]) if isinstance(said, dict) and said.get(BLOCK) else None


@contextmanager
def _reading(path: Path, within: str = "") -> Iterator[None]:
    """Raises BadInput for what goes wrong in the block; `within` says which part of the file is read."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValidationError as error:
        raise BadInput(f"the recipe {path}: {within}{first_problem(error)}") from error
    except RecursionError as error:
        raise BadInput(f"the recipe {path} is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # Not UTF-8, or a date or number that there is not.
        raise BadInput(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
