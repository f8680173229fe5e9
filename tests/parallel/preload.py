"""What every rank imports, once for all of them: ranks are forked from a process that has imported this module.

Nothing may be started here that a fork does not take along: no thread, no process group.
"""

import torch

from parallel import cpu
from tests.jobs.rank import sharded, test_checkpoint  # noqa: F401  they import models, pipelines and renderers
from tests.parallel import test_sharding, test_vae  # noqa: F401

torch.set_num_threads(1)
cpu.prepare()
