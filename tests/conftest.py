"""Programs that tests start by name (ray, python, shellcheck) are those beside this interpreter, activated or not."""

import os
import sys
from pathlib import Path

import pytest

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# Where tests take longest, or wait for processes, the longest first: both test processes shall end together.
LONG = tuple(f"tests/{name}/" for name in ("jobs/survival", "cluster", "ray_configs", "jobs/rank", "jobs", "caching"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), 99))
