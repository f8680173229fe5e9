"""A rank that stops, dies or dawdles in the middle of a dense step: the others say who, where and when, and end."""

import os
import signal
import time

import pytest

from parallel.layout import Layout
from parallel.watch import RankLost
from tests.jobs.rank.test_layouts import latents_of
from tests.parallel.gang import Gang

DEADLINE_S = 4.0
CALL = 7  # of the attention, so in the third dense step of three blocks
CULPRIT_SLEEPS_S = 30


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dawdle():
    time.sleep(CULPRIT_SLEEPS_S)


def sample(group, culprit, deed):
    """Samples until the culprit's deed; gives what the rank complains of, and after how many seconds."""
    attend, calls = group.attend, []

    def attend_and_count(*states):
        calls.append(time.monotonic())
        if len(calls) == CALL and group.rank == culprit:
            deed()
        return attend(*states)

    group.attend = attend_and_count
    try:
        latents_of(group, "full")
    except RankLost as error:
        return str(error), time.monotonic() - calls[-1]
    return "", 0.0


def warm_up(group):
    """What a first sampling needs once."""
    latents_of(group, "full")


def complaints(layout, culprit, deed, folder):
    with Gang(layout, folder, deadline_s=DEADLINE_S) as gang:
        gang.run(warm_up)
        gang.send(sample, culprit, deed)
        return [gang.answer(rank) for rank in range(layout.world_size) if rank != culprit]


ULYSSES, RING = (Layout(ulysses=3), "all_to_all"), (Layout(ring=3), "all_gather")


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("layout", "collective", "culprit", "deed"),
    [
        pytest.param(*ULYSSES, 1, stop, id="ulysses-stop"),
        pytest.param(*RING, 1, die, id="ring-die"),
        pytest.param(*RING, 0, stop, id="ring-stop-rank-0", marks=pytest.mark.slow),
        pytest.param(*ULYSSES, 0, die, id="ulysses-die-rank-0", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_gone_is_named_by_all_others(layout, collective, culprit, deed, tmp_path, capfd):
    for complaint, seconds in complaints(layout, culprit, deed, tmp_path):
        assert complaint == (
            f"{collective} in dense step 3 did not end, deadline 4 s: "
            f"rank {culprit} does not answer (stopped, killed or cut off)."
        )
        assert seconds < 2 * DEADLINE_S
    stacks = capfd.readouterr().err
    for rank in {0, 1, 2} - {culprit}:
        assert f"Stacks of rank {rank}, in dense step 3" in stacks
    assert stacks.count("attend_and_count") >= 2


@pytest.mark.timeout(200)
def test_a_rank_that_is_busy_elsewhere_is_named_with_what_it_does(tmp_path):
    for complaint, seconds in complaints(Layout(ulysses=2), 1, dawdle, tmp_path):
        assert complaint.endswith("rank 1 has not come to it, but is in dense step 3.")
        assert seconds < 2 * DEADLINE_S
