"""One gang of ranks for each layout, shared by the tests of the session."""

from collections.abc import Iterator

import pytest

from parallel.layout import Layout
from tests.parallel.gang import Gang

LAYOUTS = {"2x1": Layout(ulysses=2), "1x2": Layout(ring=2), "2x2": Layout(ulysses=2, ring=2)}


@pytest.fixture(scope="session", params=LAYOUTS.values(), ids=LAYOUTS.keys())
def gang(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    with Gang(request.param, tmp_path_factory.mktemp("gang")) as gang:
        yield gang
