"""The actor: one rank of a gang. It joins the process group, builds the session and runs items."""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVarTuple

from cluster.cpus import usable_cpus
from cluster.devices import shared_gpus
from cluster.failure import FailureKind, RankError, classify, summary_of
from cluster.heap import expand_segments, keep_freed_memory, uncollected
from cluster.heartbeat import Heartbeat
from cluster.interfaces import use_interface_of
from cluster.ranks import Member, RankContext
from cluster.session import Item, Result, Session, WarmSession, Workload
from cluster.waiting import Value

if TYPE_CHECKING:
    from torch.distributed import TCPStore

Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, kw_only=True)
class RankResult(Generic[Value]):
    """That one call ended well on one rank."""

    value: Value


# How one call ended on one rank.
RankReport: TypeAlias = RankResult[Value] | RankError


class Worker(Generic[Item, Result]):
    """One rank. All work runs in one thread of its own, so that `poll` answers meanwhile."""

    def __init__(self, env: dict[str, str], num_threads: int, on_cpu: bool, umask: int):
        os.environ.update(env)
        os.umask(umask)  # the driver's: what its ranks write is for whom it would be
        if on_cpu:
            keep_freed_memory()
        else:
            expand_segments()
        self._num_threads = min(num_threads, usable_cpus())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rank")
        self._store: TCPStore | None = None
        self._session: Session[Item, Result] | None = None
        self._batch: str | None = None  # whose turn it is, where batches take turns

    async def describe(self) -> Member:
        import ray

        context = ray.get_runtime_context()
        accelerators = context.get_accelerator_ids().get("GPU", [])
        return Member(
            node_id=context.get_node_id(),
            host=ray.util.get_node_ip_address(),
            accelerator=accelerators[0] if accelerators else "",
        )

    async def open_store(self, world_size: int, timeout_s: float) -> tuple[str, int]:
        """Rank 0: binds the rendezvous on a free port and keeps it open, so nobody else can take the port."""
        import ray

        host = ray.util.get_node_ip_address()
        self._store = await self._in_thread(_store, host, 0, world_size, timeout_s, True)
        return host, self._store.port

    async def prepare(self, context: RankContext, workload: Workload[Item, Result]) -> RankReport[None]:
        """Fetches what the sessions of this node need."""
        return await self._in_thread(self._prepare, context, workload)

    async def begin(
        self,
        context: RankContext,
        address: tuple[str, int],
        workload: Workload[Item, Result],
        join_s: float,
        collective_s: float,
    ) -> RankReport[None]:
        """Joins the process group (`join_s` to find the others) and builds the session."""
        return await self._in_thread(self._begin, context, address, workload, join_s, collective_s)

    async def take_up(self, batch: str, workload: Workload[Item, Result], umask: int) -> RankReport[None]:
        """Serves another batch from now on, whose workload loads the same."""
        return await self._in_thread(self._take_up, batch, workload, umask)

    async def run(self, item: Item, attempt: int, batch: str | None = None) -> RankReport[Result]:
        return await self._in_thread(self._run, item, attempt, batch)

    async def drained(self) -> None:
        """Returns once all that was asked before is done."""
        await self._in_thread(lambda: None)

    async def poll(self) -> Heartbeat:
        """That the worker is alive, and how far its session is."""
        session = self._session
        if session is None:
            return Heartbeat()
        beats = session.beats + session.num_ended
        return Heartbeat(progress=session.progress, beats=beats, overdue=session.overdue)

    async def stacks(self) -> str:
        """What every thread of the process is doing."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        pieces = [
            f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in sys._current_frames().items()
        ]
        return "\n".join(pieces)

    async def close(self) -> RankReport[None]:
        return await self._in_thread(self._close)

    async def _in_thread(self, work: Callable[[*Arguments], Value], *args: *Arguments) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    @uncollected()
    def _prepare(self, context: RankContext, workload: Workload[Item, Result]) -> RankReport[None]:
        return _report(lambda: workload.prepare(context))

    @uncollected()
    def _begin(
        self,
        context: RankContext,
        address: tuple[str, int],
        workload: Workload[Item, Result],
        join_s: float,
        collective_s: float,
    ) -> RankReport[None]:
        def join_and_build() -> None:
            store = self._store or _store(*address, context.world_size, join_s, False)
            _join(store, context, collective_s, self._num_threads)
            self._session = workload(context)

        return _report(join_and_build)

    def _take_up(self, batch: str, workload: Workload[Item, Result], umask: int) -> RankReport[None]:
        session = self._session
        assert isinstance(session, WarmSession)
        os.umask(umask)
        self._batch = batch
        return _report(lambda: session.take_up(workload))

    def _run(self, item: Item, attempt: int, batch: str | None) -> RankReport[Result]:
        assert self._session is not None
        session = self._session
        if batch != self._batch:  # its driver was silent for too long
            return RankError(kind=FailureKind.INFRASTRUCTURE, summary="The gang has been given to another batch.")
        return _report(lambda: session.run(item, attempt))

    def _close(self) -> RankReport[None]:
        assert self._session is not None
        return _report(self._session.close)


def _report(work: Callable[[], Value]) -> RankReport[Value]:
    try:
        return RankResult(value=work())
    except Exception as error:  # The border to foreign code: whatever it raises fails the item, not the worker.
        return RankError(kind=classify(error), summary=summary_of(error), traceback=traceback.format_exc())


@uncollected()
def _store(host: str, port: int, world_size: int, timeout_s: float, is_master: bool) -> "TCPStore":
    import torch.distributed as dist

    timeout = timedelta(seconds=timeout_s)
    return dist.TCPStore(host, port, world_size, is_master=is_master, timeout=timeout, wait_for_workers=False)


def _join(store: "TCPStore", context: RankContext, timeout_s: float, num_threads: int) -> None:
    import ray
    import torch
    import torch.distributed as dist

    host, on_cpu = ray.util.get_node_ip_address(), context.device == "cpu"
    if not on_cpu and (shared := shared_gpus()):
        raise ValueError(f"On {host}, {shared}; unset it where Ray is started.")
    torch.set_num_threads(num_threads)
    use_interface_of(host)
    if not on_cpu:
        torch.cuda.set_device(context.device)
    dist.init_process_group(
        backend="gloo" if on_cpu else "nccl",
        # NCCL then connects at once, and sends between two ranks need no communicator of their own.
        device_id=None if on_cpu else torch.device(context.device),
        store=store,
        rank=context.rank,
        world_size=context.world_size,
        timeout=timedelta(seconds=timeout_s),
    )
