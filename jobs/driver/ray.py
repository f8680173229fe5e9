"""A running Ray for a driver."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jobs.errors import INFRASTRUCTURE, BadInput, InfrastructureError


@contextmanager
def running_ray(address: str | None, *, num_cpus: int | None = None) -> Iterator[None]:
    """A running Ray, as `cluster.runtime.ray_runtime` has it; its errors at the start, in this package's terms."""
    from cluster.runtime import ClusterUnavailable, ray_runtime

    with ExitStack() as stack:
        try:
            stack.enter_context(ray_runtime(address, num_cpus=num_cpus, give_up=_leave_at_once))
        except ClusterUnavailable as error:
            raise InfrastructureError(str(error)) from error
        except ValueError as error:
            raise BadInput(str(error)) from error
        yield


def _leave_at_once(sentence: str) -> None:
    """Ends the process while Ray hangs, where no exception reaches it; nothing of a batch has begun yet."""
    print(f"resca: {sentence}", file=sys.stderr, flush=True)
    os._exit(INFRASTRUCTURE)
