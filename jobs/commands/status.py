"""`resca status DIR`: how a batch stands, from its storage alone; it may be running, anywhere."""

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from jobs.console import count, duration, make_console, write_rows
from jobs.errors import DONE, PARTIAL, BadInput
from jobs.options.batch import StatusOptions
from jobs.store.known import Done, is_intact
from jobs.store.ledger import Account, Standing, read_account
from jobs.store.lock import Holder, read_holder
from jobs.store.open import open_storage
from jobs.store.storage import Storage

MOST_LINES = 20
# A driver writes its lock every 5 s.
SILENT_S = 60.0


def run(options: StatusOptions) -> int:
    """Print how the batch stands. Returns 3 if videos were given up or, with `verify`, are damaged; else 0."""
    storage, console = open_storage(options.out), make_console()
    account = read_account(storage)
    if not account.begun:
        raise BadInput(f"{storage} holds no batch: there is no ledger")
    holder = read_holder(storage)
    _print(console, account, holder)
    damaged = list(_damaged(storage, account)) if options.verify else []
    for name in damaged:
        console.print(f"damaged or missing: {name}", soft_wrap=True)
    if options.json:
        write_rows(options.json, [_row(name, standing) for name, standing in account.items.items()])
    return PARTIAL if account.counts()["failed"] or damaged else DONE


def _print(console: Console, account: Account, holder: Holder | None) -> None:
    counts, begun = account.counts(), account.begun
    total = max(begun["total"], len(account.items))
    told = ", ".join(f"{counts[status]} {status}" for status in ("done", "running", "retrying", "waiting", "failed"))
    console.print(f"{count(total, 'video')} with {begun['model']}, method {begun['method']}: {told}", soft_wrap=True)
    console.print(_driver(account, holder), soft_wrap=True)
    if pace := _pace(account):
        console.print(pace, soft_wrap=True)
    if account.gang_losses or account.retries:
        retries = ", ".join(f"{number} {kind}" for kind, number in account.retries.items()) or "none"
        console.print(f"gangs lost: {account.gang_losses}; retries: {retries}")
    _print_items(console, account, "running", lambda each: f"for {duration(_since(each))}, gang {each.facts.get('g')}")
    _print_items(console, account, "failed", lambda each: each.facts.get("error", ""))


def _driver(account: Account, holder: Holder | None) -> str:
    if holder is None:
        how = account.ended["how"] if account.ended else "stopped"
        return f"no driver at work; the last one ended: {how}, {duration(time.time() - account.last_s)} ago"
    where = f"process {holder.pid} on {holder.host}"
    if holder.is_certainly_dead():
        return f"the driver ({where}) was killed; run the same command again, or resca retry"
    silence_s = time.time() - max(account.last_s, holder.written_s)
    told = f"driver: {where}, last heard of {duration(silence_s)} ago"
    return (
        f"{told}; it may be dead or cut off: the same command, run again, takes over" if silence_s > SILENT_S else told
    )


def _pace(account: Account) -> str | None:
    """Videos an hour since this driver has begun, and how long the rest takes at that pace."""
    begun_s = account.begun["t"]
    ends = [each.facts["t"] for each in account.items.values() if each.status == "done" and each.facts["t"] > begun_s]
    if not ends:
        return None
    seconds = max(ends) - begun_s
    counts = account.counts()
    left = counts["running"] + counts["retrying"] + counts["waiting"]
    rest = f"; the other {left} take about {duration(left * seconds / len(ends))}" if left else ""
    return f"{3600 * len(ends) / seconds:.3g} videos an hour{rest}"


def _print_items(console: Console, account: Account, status: str, about: Any) -> None:
    listed = [(name, each) for name, each in account.items.items() if each.status == status]
    for name, each in listed[:MOST_LINES]:
        console.print(f"  {status} {name}: {about(each)}", soft_wrap=True)
    if len(listed) > MOST_LINES:
        console.print(f"  and {len(listed) - MOST_LINES} more {status}")


def _since(standing: Standing) -> float:
    return time.time() - standing.facts["t"]


def _damaged(storage: Storage, account: Account) -> Iterator[str]:
    files = storage.folder("videos")
    for standing in account.items.values():
        if standing.status == "done" and not is_intact(storage, Done.of_ledger(standing.facts), files, verify=True):
            yield f"{standing.facts['name']}.mp4"


def _row(name: str, standing: Standing) -> dict[str, Any]:
    facts = {key: value for key, value in standing.facts.items() if key not in ("e", "id")}
    return {"id": name, "status": standing.status, "attempts": standing.attempts, **facts}
