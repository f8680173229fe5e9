"""The same rendering without Ray, driver or ledger: a loop in a process that torchrun starts, to compare with.

torchrun --nproc-per-node 1 -m jobs.measure.plain PROMPTS OUT TIMES.json [--option ...]  # options as of `resca render`
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from cluster.cpus import usable_cpus
from cluster.heap import keep_freed_memory, uncollected
from cluster.ranks import RankContext
from jobs.driver.batch_plan import make_plan
from jobs.driver.ranks import workload_of
from jobs.options.command_line import parse
from parallel.layout import Layout


def main(prompts: str, out: str, times: str, *options: str) -> None:
    """Render all prompts and write when each video was published, in seconds since 1970."""
    plan = make_plan(parse(["render", prompts, "--out", out, *options]))
    rank, world_size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    device = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    asked, share = plan.options.cpus_per_rank, max(1, usable_cpus() // world_size)
    torch.set_num_threads(share if asked == "auto" else asked)
    if device == "cpu":
        keep_freed_memory()
    else:
        torch.cuda.set_device(device)
    device_id = None if device == "cpu" else torch.device(device)
    dist.init_process_group("gloo" if device == "cpu" else "nccl", device_id=device_id)
    workload = workload_of(plan, Layout(ulysses=world_size))
    with uncollected():
        session = workload(RankContext(rank=rank, world_size=world_size, local_rank=local_rank, device=device))
    done_s = []
    for item in plan.todo:
        session.run(item, 1)
        done_s.append(time.time())
    session.close()
    dist.destroy_process_group()
    if rank == 0:
        Path(times).write_text(json.dumps(done_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
