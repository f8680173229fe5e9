"""A driver that a test kills: two ranks, which outlive it. `python warm_driver.py ADDRESS FOLDER LEASE_S FIRST`."""

import sys
from pathlib import Path

from cluster.claim import KeepWarm
from cluster.pool import open_pool
from cluster.runtime import ray_runtime
from jobs.measure.idle import Alone
from tests.cluster.toy import PAIR, Errand, ToyWorkload

if __name__ == "__main__":
    address, folder, lease_s, first = sys.argv[1:]
    workload = ToyWorkload(Path(folder), Errand)
    keep = KeepWarm(key="toy", lease_s=float(lease_s), claim_s=10)
    with ray_runtime(address), open_pool(spec=PAIR, gangs=1, workload=workload, keep=keep, start_worker=Alone) as pool:
        pool.run([{"value": 1}, {"value": 2, "first": first}], is_last=True)
