"""One gang of ranks for each layout and engine, shared by the tests of the session."""

from collections.abc import Iterator

import pytest

from parallel.layout import Layout
from tests.parallel.gang import Gang

GANGS = {
    "2x1": (Layout(ulysses=2), "xfuser"),
    "1x2": (Layout(ring=2), "xfuser"),
    "2x2": (Layout(ulysses=2, ring=2), "xfuser"),
    "deepspeed-2": (Layout(ulysses=2), "deepspeed"),
}


@pytest.fixture(scope="session", params=GANGS.values(), ids=GANGS.keys())
def gang(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    layout, engine = request.param
    with Gang(layout, tmp_path_factory.mktemp("gang"), engine=engine) as gang:
        yield gang
