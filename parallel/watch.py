"""Deadlines: when a collective does not end, the ranks ask each other, and the error names who is missing."""

import faulthandler
import json
import logging
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import ClassVar

import torch
import torch.distributed as dist

logger = logging.getLogger(__name__)

TICK_S = 0.5
ASK_S = 5.0  # at most, and at most half the deadline
ADDRESS_BYTES = 64


class RankLost(RuntimeError):
    """A collective did not end: the message names the ranks at fault, the collective and the step."""

    failure_kind: ClassVar[str] = "infrastructure"


class Watch:
    """What one rank knows of the others, made by all ranks of the default process group at the same time.

    Every rank answers on a port of its own, in a thread of its own, what it is doing; a rank that is stopped, killed or
    cut off does not. So nothing depends on any one rank being there, as a shared store would.
    """

    def __init__(self, deadline_s: float, device: torch.device) -> None:
        self.rank, self.deadline_s = dist.get_rank(), deadline_s
        self.step, self.waiting_in = "setup", ""
        self.overdue: str | None = None  # on CUDA: one sentence on what did not end, once the deadline has passed
        self.num_ended = 0  # collectives
        self.pending: deque[tuple[str, Callable[[], bool]]] = deque()  # on CUDA: enqueued, and whether it is done
        self._device = device
        self._dumped = threading.Lock()
        self._server = socket.create_server((_own_host(), 0), backlog=dist.get_world_size() + 1)
        self._server.settimeout(self._tick_s)
        self._addresses = _exchange(self._server.getsockname()[:2], device)
        self._closed = threading.Event()
        tasks = [self._answer] if device.type == "cpu" else [self._answer, self.await_pending]
        self._threads = [threading.Thread(target=task, name=task.__name__, daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()
        self.set_deadline(deadline_s)

    @property
    def _tick_s(self) -> float:
        return min(TICK_S, self.deadline_s / 4)

    def set_deadline(self, deadline_s: float) -> None:
        """From now on; no collective is under way."""
        self.deadline_s = deadline_s
        # NCCL ends the process: speak first.
        _set_timeouts(deadline_s if self._device.type == "cpu" else 1.5 * deadline_s)

    def close(self) -> None:
        """Stop answering."""
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._server.close()

    @contextmanager
    def over(self, collective: str) -> Iterator[None]:
        """The block is this collective. Raises RankLost where the backend gives up (gloo; NCCL ends the process)."""
        self.wait_in(collective)
        with self.guard():
            yield
        if self._device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            self.pending.append((self.waiting_in, event.query))
        else:
            self.num_ended += 1
        self.waiting_in = ""

    def wait_in(self, collective: str) -> None:
        """From now on this rank waits for the others."""
        self.waiting_in = f"{collective} in {self.step}"

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raises RankLost where the block fails by other ranks."""
        try:
            yield
        except RuntimeError as error:
            if not _is_of_the_link(error):
                raise
            raise RankLost(self.diagnosis(self.waiting_in or f"a collective in {self.step}")) from error

    def diagnosis(self, what: str) -> str:
        """One sentence on a collective that did not end, after asking the other ranks; all stacks go to stderr."""
        self._dump_stacks()
        timeout_s = min(ASK_S, self.deadline_s / 2)
        others = [rank for rank in range(len(self._addresses)) if rank != self.rank]
        with ThreadPoolExecutor(max_workers=max(1, len(others))) as pool:
            answers = pool.map(lambda rank: _ask(self._addresses[rank], timeout_s), others)
            at_fault = _at_fault(dict(zip(others, answers, strict=True)))
        return f"{what} did not end, deadline {self.deadline_s:g} s: {at_fault}"

    def await_pending(self) -> None:
        """See to the deadline of what runs on the GPU, from the end of what ran before it; returns when it has passed.

        The diagnosis is left in `overdue`, and logged: nothing can be raised where the host does not wait.
        """
        moved = time.monotonic()
        while not self._closed.wait(self._tick_s):
            while self.pending and self.pending[0][1]():
                self.pending.popleft()
                self.num_ended += 1
                moved = time.monotonic()
            if not self.pending:
                moved = time.monotonic()
            if time.monotonic() - moved > self.deadline_s:
                self.overdue = self.diagnosis(self.pending[0][0])
                logger.error(self.overdue)
                return

    def _answer(self) -> None:
        """Tell whoever asks what this rank does."""
        while not self._closed.is_set():
            with suppress(TimeoutError, ConnectionError):
                connection, _ = self._server.accept()
                waiting_in = self.waiting_in or next((name for name, _ in list(self.pending)), "")
                with connection:
                    connection.sendall(json.dumps({"waiting_in": waiting_in, "step": self.step}).encode())
                self._dump_stacks()

    def _dump_stacks(self) -> None:
        """Every thread's stack to stderr, once in a process."""
        if self._dumped.acquire(blocking=False):
            print(f"Stacks of rank {self.rank}, in {self.step}:", file=sys.__stderr__, flush=True)
            faulthandler.dump_traceback(file=sys.__stderr__ or 2)


def _is_of_the_link(error: RuntimeError) -> bool:
    """Whether a collective failed by its peers, and not by its own arguments or for want of memory."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)  # gloo names the place in its source


def _at_fault(answers: dict[int, dict[str, str] | None]) -> str:
    """Who is at fault: ranks that do not answer, else those that are elsewhere."""
    silent = [rank for rank, answer in answers.items() if answer is None]
    if silent:
        return f"{_ranks(silent)} not answer (stopped, killed or cut off)."
    elsewhere = {rank: answer["step"] for rank, answer in answers.items() if answer and not answer["waiting_in"]}
    if elsewhere:
        return "; ".join(f"rank {rank} has not come to it, but is in {step}" for rank, step in elsewhere.items()) + "."
    places = [f"rank {rank} waits in {answer['waiting_in']}" for rank, answer in answers.items() if answer]
    return "; ".join(places) + "."


def _ranks(ranks: list[int]) -> str:
    return f"rank {ranks[0]} does" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} do"


def _ask(address: tuple[str, int], timeout_s: float) -> dict[str, str] | None:
    """What the rank at this address is doing; None if it does not answer in time."""
    try:
        with socket.create_connection(address, timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            with connection.makefile("rb") as answer:
                return json.loads(answer.read() or b"null")
    except OSError:
        return None


def _own_host() -> str:
    """The address by which this machine reaches the rendezvous; the loopback where that is a file."""
    store = dist.distributed_c10d._get_default_store()
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((getattr(store, "host", "127.0.0.1"), 9))  # Datagrams: nothing is sent.
        return probe.getsockname()[0]


def _exchange(address: tuple[str, int], device: torch.device) -> list[tuple[str, int]]:
    """The addresses of all ranks."""
    text = json.dumps(address).ljust(ADDRESS_BYTES).encode()
    own = torch.tensor(list(text), dtype=torch.uint8, device=device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    return [tuple(json.loads(bytes(each.tolist()))) for each in every]


def _set_timeouts(timeout_s: float) -> None:
    """Groups do not inherit the default group's timeout: those that xfuser made would wait for half an hour."""
    for group in list(dist.distributed_c10d._world.pg_map):
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s), group)
