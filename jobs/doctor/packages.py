"""Python and the packages against what this project declares."""

import platform
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from jobs.doctor.finding import Finding, ok, problem
from jobs.options.batch import DoctorOptions

PROJECT = "resca-render"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
# Named when all is well: what decides how a video looks and how long it takes.
NAMED = ("torch", "ray", "diffusers", "transformers", "xfuser")


def check_python(options: DoctorOptions) -> Iterator[Finding]:
    """The interpreter's version."""
    found, wanted = platform.python_version(), _declared()[0]
    if SpecifierSet(wanted).contains(found, prereleases=True):
        yield ok(f"Python {found}")
    else:
        yield problem(f"Python {found}, needed is {wanted}", "make the virtual environment with another Python")


def check_packages(options: DoctorOptions) -> Iterator[Finding]:
    """Every package that is always needed, in a declared version."""
    needed = [requirement for requirement in _declared()[1] if _is_needed(requirement)]
    wrong = [finding for requirement in needed if (finding := _compare(requirement))]
    yield from wrong
    if not wrong:
        named = ", ".join(f"{name} {version(name)}" for name in NAMED)
        yield ok(f"all {len(needed)} as declared, among them {named}")


def _compare(requirement: Requirement) -> Finding | None:
    remedy = f"pip install '{requirement}'"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return problem(f"{requirement.name} is not installed", remedy)
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return problem(f"{requirement.name} is {found}, needed is {requirement.specifier}", remedy)


def _declared() -> tuple[str, list[Requirement]]:
    """Python's version and the packages, as installed or, in a checkout that is not, as in pyproject.toml."""
    try:
        python, lines = metadata(PROJECT)["Requires-Python"], requires(PROJECT) or []
    except PackageNotFoundError:
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        python, lines = project["requires-python"], project["dependencies"]
    return python, [Requirement(line) for line in lines]


def _is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
