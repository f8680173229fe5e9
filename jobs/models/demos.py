"""The models that ship with the project, by the names under which `--model` takes them."""

from pathlib import Path

_ROOM = Path(__file__).parents[1] / "demo"
DEMOS = {"demo": _ROOM / "model", "demo-wan": _ROOM / "model_wan", "demo-dit": _ROOM / "model_dit"}
