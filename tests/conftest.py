"""Programs that tests start by name (ray, python, shellcheck) are those beside this interpreter, activated or not."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:  # it imports torch, which not every test needs
    from tests.fake_cuda import FakeCuda

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# Where tests take longest, or wait for processes, the longest first: both test processes shall end together.
LONG = tuple(f"tests/{name}/" for name in ("jobs/survival", "cluster", "ray_configs", "jobs/rank", "jobs", "caching"))


# They share one process with a GPU that is not there, which takes long to start.
ON_FAKE_CUDA = ("jobs/measure/test_memory.py", "caching/test_on_fake_cuda.py", "parallel/test_on_fake_cuda.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), 99))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):
    """A file stays on one process, and so do all files on a GPU that is not there."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "a GPU that is not there" if file.endswith(ON_FAKE_CUDA) else file


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[FakeCuda]":
    """A process with a GPU that is not there."""
    from tests.fake_cuda import FakeCuda, build_guard

    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        pytest.skip("to make torch believe in a GPU takes a C++ compiler, and there is none")
    with FakeCuda(build_guard(compiler, tmp_path_factory.mktemp("fake_cuda"))) as process:
        yield process
