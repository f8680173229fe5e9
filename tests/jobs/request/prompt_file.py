"""Prompt files for tests, and what is said of those that cannot be read."""

from pathlib import Path

import pytest

from jobs.errors import BadInput
from jobs.request.prompts import Defaults, read_items

DEFAULTS = Defaults(height=64, width=96, num_frames=17, steps=50, seed=100)


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_items(path, DEFAULTS)
    assert "\n" not in str(caught.value)
    return str(caught.value)
