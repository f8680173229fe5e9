"""What does not fit on a cluster's GPUs is refused before anything starts."""

import pytest

from cluster import gpus
from jobs.driver.batch_plan import make_plan
from jobs.driver.gpu_memory import check_gpu_memory
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions
from jobs.options.shared import VideoOptions
from parallel.layout import Layout

NODES = [{"CPU": 8.0, "GPU": 2.0, "accelerator_type:T4": 1.0}]


@pytest.fixture
def plan(tmp_path):
    """Of a small video by another method, and a larger one."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a red circle", "method": "full", "num_frames": 9}\n"a red circle"\n')
    return make_plan(
        RenderOptions(prompts=prompts, out=str(tmp_path / "out"), address="10.0.0.1:6379", video=VideoOptions(steps=9))
    )


def test_what_fits_is_told(plan):
    need = check_gpu_memory(plan, Layout(ulysses=2), NODES)
    assert need is not None and need.startswith("128x128x41 needs 3.") and need.endswith("on each GPU")


def test_what_does_not_fit_is_refused(plan, monkeypatch):
    monkeypatch.setitem(gpus.MEMORY_BYTES, "T4", 2**30)
    with pytest.raises(
        BadInput, match=r"method full at 128x128x9 needs 3\.. GiB .* on a GPU of 1\.0 GiB: .*no length fits"
    ):
        check_gpu_memory(plan, Layout(ulysses=2), NODES)


def test_what_is_not_known_is_not_refused(plan):
    assert check_gpu_memory(plan, Layout(), [{"CPU": 8.0, "GPU": 2.0}])
