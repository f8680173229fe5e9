"""A running Ray for a driver."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from jobs.errors import BadInput, InfrastructureError


@contextmanager
def running_ray(address: str | None) -> Iterator[None]:
    """A running Ray; its errors at the start, in this package's terms."""
    from cluster.runtime import ClusterUnavailable, ray_runtime

    with ExitStack() as stack:
        try:
            stack.enter_context(ray_runtime(address))
        except ClusterUnavailable as error:
            raise InfrastructureError(str(error)) from error
        except ValueError as error:
            raise BadInput(str(error)) from error
        yield
