"""The models that ship with the project, by the names under which `--model` takes them."""

import os
from pathlib import Path

_ROOM = Path(__file__).parents[1] / "demo"
DEMOS = {"demo": _ROOM / "model", "demo-wan": _ROOM / "model_wan", "demo-dit": _ROOM / "model_dit"}


def is_path(model: str) -> bool:
    """Whether a model is named by a path of this machine, and not as one of these or by a hub id."""
    return model not in DEMOS and os.path.exists(model)
