"""One thing that a check has seen: a verdict, and what to do about it."""

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row of the doctor's table."""

    verdict: str
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    """As it should be."""
    return Finding(verdict=OK, found=found)


def warning(found: str, remedy: str) -> Finding:
    """Rendering can work in spite of it."""
    return Finding(verdict=WARNING, found=found, remedy=remedy)


def problem(found: str, remedy: str) -> Finding:
    """Rendering would fail."""
    return Finding(verdict=PROBLEM, found=found, remedy=remedy)


def size(num_bytes: float) -> str:
    """`1.5 GiB`, and `2.0 MiB` for what is small."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
