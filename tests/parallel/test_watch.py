"""Who is missing, where the host does not wait: as on a GPU, whose collectives are only enqueued."""

import logging
import os
import signal

import pytest

from parallel.layout import Layout
from tests.parallel.gang import Gang

pytestmark = pytest.mark.timeout(120)


def await_what_never_ends(group, stopped):
    """What is said of a collective that is enqueued and does not end, and logged; one rank may be stopped meanwhile.

    What ended before it is counted.
    """
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("parallel.watch").addHandler(handler)
    group.mark("dense", 4)
    group._watch.pending.extend([("all_to_all in dense step 3", lambda: True), ("all_to_all in dense step 4", bool)])
    if group.rank == stopped:
        os.kill(os.getpid(), signal.SIGSTOP)
    before = group.num_ended, group.overdue
    group._watch.await_pending()
    assert before == (group.num_ended - 1, None) and records == [group.overdue]
    return group.overdue


def test_a_stopped_rank_is_named_by_the_others(tmp_path):
    with Gang(Layout(ring=3), tmp_path, deadline_s=2) as gang:
        gang.send(await_what_never_ends, 2)
        for rank in (0, 1):
            assert gang.answer(rank) == (
                "all_to_all in dense step 4 did not end, deadline 2 s: "
                "rank 2 does not answer (stopped, killed or cut off)."
            )


def test_ranks_that_all_wait_say_where(tmp_path):
    with Gang(Layout(ulysses=2), tmp_path, deadline_s=2) as gang:
        first, second = gang.run(await_what_never_ends, None)
    start = "all_to_all in dense step 4 did not end, deadline 2 s: "
    assert first == f"{start}rank 1 waits in all_to_all in dense step 4."
    assert second == f"{start}rank 0 waits in all_to_all in dense step 4."
