"""A driver that a test kills: two ranks, which outlive it. `python warm_driver.py ADDRESS FOLDER LEASE_S FIRST`."""

import sys
from pathlib import Path

from cluster.batch import KeepWarm, run_batch
from cluster.runtime import ray_runtime
from tests.cluster.toy import PAIR, ToyWorkload

if __name__ == "__main__":
    address, folder, lease_s, first = sys.argv[1:]
    keep = KeepWarm(key="toy", lease_s=float(lease_s), claim_s=2)
    with ray_runtime(address):
        items = [{"value": 1}, {"value": 2, "first": first}]
        run_batch(spec=PAIR, gangs=1, workload=ToyWorkload(Path(folder)), items=items, keep=keep)
