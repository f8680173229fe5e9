"""The GPU that Ray gives each rank: the only one that its process sees."""

import os

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
LEFT_VISIBLE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


def shared_gpus() -> str | None:
    """Why every rank would take the first GPU of its node, if so it is by the environment."""
    value = os.environ.get(LEFT_VISIBLE, "")
    if value.lower() not in ("1", "true"):  # as Ray reads it
        return None
    return f"{LEFT_VISIBLE}={value} keeps Ray from giving each rank a GPU of its own, so all would take the first"
