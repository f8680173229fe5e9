"""A running Ray for a driver."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from jobs.errors import INFRASTRUCTURE, BadInput, InfrastructureError


@contextmanager
def running_ray(
    address: str | None,
    *,
    num_cpus: int | None = None,
    leaving: Callable[[int, str], None] = lambda code, sentence: None,
) -> Iterator[None]:
    """A running Ray, as `cluster.runtime.ray_runtime` has it; its errors at the start, in this package's terms.

    `leaving` is told the exit code and a sentence where no exception reaches the process, which ends then.
    """
    from cluster.runtime import ClusterUnavailable, ray_runtime

    with ExitStack() as stack:
        try:
            stack.enter_context(ray_runtime(address, num_cpus=num_cpus, give_up=partial(_leave_at_once, leaving)))
        except ClusterUnavailable as error:
            raise InfrastructureError(str(error)) from error
        except ValueError as error:
            raise BadInput(str(error)) from error
        yield


def _leave_at_once(leaving: Callable[[int, str], None], sentence: str) -> None:
    """Ends the process while Ray hangs, where no exception reaches it; nothing of a batch has begun yet."""
    print(f"resca: {sentence}", file=sys.stderr, flush=True)
    leaving(INFRASTRUCTURE, sentence)
    os._exit(INFRASTRUCTURE)
