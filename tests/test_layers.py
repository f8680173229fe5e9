"""Imports point one way: jobs -> cluster -> parallel, caching; parallel and caching know neither Ray nor each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "caching": {"parallel", "cluster", "jobs", "ray", "xfuser"},
    "parallel": {"caching", "cluster", "jobs", "ray"},
    "cluster": {"jobs", "caching", "diffusers"},
    "jobs": set(),
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [(path.name, name) for path in files for name in imports(path) if name.split(".")[0] in FORBIDDEN[package]]
    assert not wrong
