"""Imports point one way: jobs -> cluster -> parallel, caching; parallel and caching know neither Ray nor each other.

So do the rooms inside jobs and caching: each imports only rooms that stand before it.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "caching": {"parallel", "cluster", "jobs", "ray", "xfuser"},
    "parallel": {"caching", "cluster", "jobs", "ray"},
    "cluster": {"jobs", "caching", "diffusers"},
    "jobs": set(),
}
# A room is a folder, or a file that stands beside the folders; those that open a room within it are named with it.
ROOMS = {
    "caching": [
        *("state_dict", "recipe", "group", "shards", "attention", "models", "text", "medoids", "snapshot"),
        *("predict", "site", "step", "features", "proxies", "refined", "passes", "parted", "generation"),
        *("attachment", "engine", "depth", "meta_counter", "flops", "peak"),
    ],
    "jobs": [
        *("errors", "machine", "store", "console", "models", "options", "request", "predict", "rank", "demo", "doctor"),
        *("driver.gallery", "driver", "serve"),
        *("measure", "measure.sampling", "measure.tune", "measure.gpu", "measure.analysis", "commands", "__main__"),
    ],
}
FREE_OF_TORCH = ("recipe", "state_dict")


def imports(path, nodes=ast.walk):
    """The modules that a file imports, anywhere in it or where `nodes` look."""
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module, package):
    """The room of a module, by the longest name that fits; None for a package itself and for modules of others."""
    parts = module.split(".")
    names = [".".join(parts[1:end]) for end in (3, 2) if parts[0] == package and len(parts) >= end]
    return next((name for name in names if name in ROOMS[package]), names[-1] if names and names[-1] else None)


def edges(package):
    """Which room imports which, and the file that does."""
    for path in (ROOT / package).rglob("*.py"):
        room = room_of(module_of(path), package)
        for name in imports(path):
            target = room_of(name, package)
            if room and target and target != room:
                yield room, target, path.name


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [(path.name, name) for path in files for name in imports(path) if name.split(".")[0] in FORBIDDEN[package]]
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_has_its_place(package):
    rooms = {room_of(module_of(path), package) for path in (ROOT / package).rglob("*.py")} - {None}
    assert rooms == set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_rooms_before_them(package):
    place = {room: number for number, room in enumerate(ROOMS[package])}
    assert not [edge for edge in edges(package) if place[edge[1]] > place[edge[0]]]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_files_import_each_other_in_a_circle(package):
    """Of what is imported with a file; imports inside functions come later."""
    paths = {module_of(path): path for path in (ROOT / package).rglob("*.py")}
    graph = {}
    for module, path in paths.items():
        names = {name if name in paths else name.rpartition(".")[0] for name in imports(path, ast.iter_child_nodes)}
        graph[module] = (names & paths.keys()) - {module}
    assert list(TopologicalSorter(graph).static_order())


def test_recipes_are_free_of_torch():
    files = [path for path in (ROOT / "caching").rglob("*.py") if room_of(module_of(path), "caching") in FREE_OF_TORCH]
    assert files
    assert not [path.name for path in files if any(name.split(".")[0] == "torch" for name in imports(path))]
