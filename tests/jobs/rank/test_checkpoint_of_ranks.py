"""Several ranks that are stopped together go on together, in new processes, to the same bits."""

import pytest
import torch

from parallel.layout import Layout
from tests.jobs.rank.test_checkpoint import Stopped, checkpoints_in, sample
from tests.parallel.gang import Gang

LAYOUTS = [Layout(ulysses=2), Layout(ring=2)]
SHARDED = ("resca", "taylorseer", "duca")


def sample_on_rank(group, name, folder=None, stop=None):
    """What a rank ends with, and how many steps it did not have to make; nothing for a loop that was stopped."""
    checkpoints = None if folder is None else checkpoints_in(folder)
    try:
        latents = sample(name, checkpoints, stop=stop, group=group)
    except Stopped:
        return None
    return latents, checkpoints.resumed_step if checkpoints else 0


@pytest.fixture(scope="module")
def left_by_ranks(tmp_path_factory):
    """Of each layout and method: where two processes, gone by now, were stopped, and what they had made undisturbed."""
    folder, left = tmp_path_factory.mktemp("sharded"), {}
    with Gang(LAYOUTS[0], tmp_path_factory.mktemp("gang")) as gang:
        for gang.layout in LAYOUTS:
            for name in SHARDED:
                place = folder / f"{gang.layout.ulysses}x{gang.layout.ring}" / name
                expected = [latents for latents, _ in gang.run(sample_on_rank, name)]
                gang.run(sample_on_rank, name, place, 6)
                left[gang.layout, name] = place, expected
    return left


@pytest.fixture(scope="module")
def new_gang(left_by_ranks, tmp_path_factory):
    with Gang(LAYOUTS[0], tmp_path_factory.mktemp("gang")) as gang:
        yield gang


@pytest.mark.timeout(300)
@pytest.mark.parametrize("layout", [LAYOUTS[0], pytest.param(LAYOUTS[1], marks=pytest.mark.slow)])
def test_ranks_go_on_in_new_processes_to_the_same_bits(left_by_ranks, new_gang, layout):
    new_gang.layout = layout
    for name in SHARDED:
        place, expected = left_by_ranks[layout, name]
        assert len(list(place.glob("*.safetensors"))) == 2
        for (latents, resumed_step), alone in zip(new_gang.run(sample_on_rank, name, place), expected, strict=True):
            assert resumed_step == 4 and torch.equal(latents, alone)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_start_anew_together_if_the_file_of_one_is_missing(left_by_ranks, new_gang, tmp_path, rank):
    new_gang.layout = LAYOUTS[0]
    new_gang.run(sample_on_rank, "duca", tmp_path, 6)
    next(tmp_path.glob(f"*.rank-{rank}.safetensors")).unlink()
    for latents, resumed_step in new_gang.run(sample_on_rank, "duca", tmp_path):
        assert resumed_step == 0 and torch.equal(latents, left_by_ranks[LAYOUTS[0], "duca"][1][0])


@pytest.mark.timeout(300)
def test_ranks_of_another_layout_start_anew(left_by_ranks, new_gang, tmp_path):
    new_gang.layout = LAYOUTS[0]
    new_gang.run(sample_on_rank, "duca", tmp_path, 6)
    new_gang.layout = LAYOUTS[1]
    for latents, resumed_step in new_gang.run(sample_on_rank, "duca", tmp_path):
        assert resumed_step == 0 and torch.equal(latents, left_by_ranks[LAYOUTS[1], "duca"][1][0])


@pytest.mark.timeout(300)
def test_a_checkpoint_that_one_rank_cannot_write_does_not_count(new_gang, tmp_path):
    new_gang.layout = LAYOUTS[0]
    (tmp_path / "step-000001.rank-1.safetensors").mkdir()
    new_gang.run(sample_on_rank, "full", tmp_path, 2)
    assert [path.name for path in tmp_path.glob("*.json")] == ["step-000002.json"]
