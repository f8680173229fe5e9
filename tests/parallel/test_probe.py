"""Links are probed by the calls that a layout makes, between the ranks that make them."""

import pytest

from jobs.measure.scaling.probe import probe as probe_ranks
from jobs.predict.measured import Probe, ProbeRequest
from parallel.collectives import CallTime, sent_bytes
from parallel.group import SequenceGroup
from parallel.probe import probe_links
from tests.parallel import work
from tests.parallel.gang import Gang

pytestmark = pytest.mark.timeout(200)
SIZES = (4096, 65536)


def probe(group: SequenceGroup) -> list[CallTime]:
    return probe_links(group.layout, SIZES, SIZES)


def test_each_layout_is_asked_for_its_own_calls(gang: Gang):
    ulysses, ring = gang.layout.ulysses, gang.layout.ring
    asked = [("all_to_all", size, ulysses) for size in SIZES if ulysses > 1]
    asked += [("all_gather", size, ring) for size in SIZES if ring > 1]
    for found in gang.run(probe):
        assert [(each.collective, each.bytes_sent) for each in found] == [
            (collective, sent_bytes(collective, size, num_ranks)) for collective, size, num_ranks in asked
        ]
        assert all(each.seconds > 0 for each in found)


def test_what_was_made_for_a_probe_is_gone_behind_it(gang: Gang):
    assert gang.run(num_groups)[0] == 0
    assert len(gang.run(work.attend)) == gang.layout.world_size


def num_groups(group: SequenceGroup) -> int:
    """How many process groups a probe leaves behind."""
    from torch.distributed import distributed_c10d

    before = len(distributed_c10d._world.pg_map)
    probe(group)
    return len(distributed_c10d._world.pg_map) - before


def probe_all(group: SequenceGroup) -> Probe:
    request = ProbeRequest(layout=group.layout, tokens=48, width=32, heads=4, dtype="float32", number_bytes=4)
    return probe_ranks(request, group)


def test_what_ranks_can_do_is_found_on_any_layout(gang: Gang):
    found = gang.run(probe_all)[0]
    assert found.together >= 1
    assert min(found.linear_flops_per_s, found.attention_flops_per_s, found.memory_bytes_per_s) > 0
    kinds = {"all_to_all": gang.layout.ulysses > 1, "all_gather": gang.layout.ring > 1}
    assert {call.collective for call in found.calls} == {kind for kind, is_made in kinds.items() if is_made}
