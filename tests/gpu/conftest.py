"""What only a real GPU can show. Everything here is skipped without one."""

import pytest
import torch

from tests.caching.conftest import inputs, sample  # noqa: F401  fixtures of the small transformer


@pytest.fixture(autouse=True, scope="session")
def device() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use")
    return torch.device("cuda:0")
