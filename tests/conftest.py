"""Programs that tests start by name (ray, python, shellcheck) are those beside this interpreter, activated or not."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it imports torch, which not every test needs
    from tests.fake_cuda import FakeCuda

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# Where tests take longest, or wait for processes, the longest first: both test processes shall end together.
LONG = tuple(f"tests/{name}/" for name in ("jobs/survival", "cluster", "ray_configs", "jobs/rank", "jobs", "caching"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of a process stay together, and so do all that share the process with a GPU that is not there."""
    items.sort(key=lambda item: next((place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), 99))
    for item in items:
        on_fake_cuda = "fake_cuda" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("fake_cuda" if on_fake_cuda else item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FakeCuda]":
    """A process with a GPU that is not there."""
    from tests.fake_cuda import FakeCuda, build_guard

    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        pytest.skip("to make torch believe in a GPU takes a C++ compiler, and there is none")
    with FakeCuda(build_guard(compiler, tmp_path_factory.mktemp("fake_cuda"))) as process:
        yield process
