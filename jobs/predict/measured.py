"""A profile as `resca scaling` measures it: by videos of its first layout, and by probes of ranks and their links."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.predict.calibrate import Seen, calibrated_by_videos
from jobs.predict.profile import Profile, Quantity
from jobs.predict.seconds import Setup
from parallel.collectives import CallTime, Collective
from parallel.layout import Layout

# What takes longer where the ranks of a machine work at the same time.
OF_A_RANK = ("linear_flops_per_s", "attention_flops_per_s", "decode_flops_per_s", "block_launch_s", "step_s")
SIZES = (0.25, 1.0, 4.0)  # of the sizes in question
LEAST_BYTES = 1024
EQUAL = 1e-9
HELD = 1e-4  # as in `calibrated_by_videos`: little, as videos of two lengths are seen
FAST = 1e15  # bytes a second of a link on which bytes make no difference


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """For what kind of video ranks are probed: their layout, the most tokens that one has, and the number format."""

    layout: Layout
    tokens: int
    width: int
    heads: int
    dtype: str
    number_bytes: int

    @classmethod
    def of(cls, setup: Setup, dtype: str) -> "ProbeRequest":
        numbers = setup.shape.numbers
        return cls(
            layout=setup.layout,
            tokens=setup.tokens,
            width=numbers.width,
            heads=numbers.heads,
            dtype=dtype,
            number_bytes=setup.shape.number_bytes,
        )

    def sizes(self, tensors: int) -> list[int]:
        """Bytes of so many tensors of a rank's tokens, and some less and more."""
        whole = tensors * self.tokens * self.width * self.number_bytes
        return [max(LEAST_BYTES, int(part * whole)) for part in SIZES]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the ranks of a gang can do: FLOP/s of one alone, memory around joint attention, and calls between them."""

    linear_flops_per_s: float
    attention_flops_per_s: float
    memory_bytes_per_s: float
    together: float
    """How many times as long arithmetic takes where all ranks compute at the same time."""
    calls: tuple[CallTime, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Seconds of a block, some times: on rank 0 while the others wait, and then on all ranks, `[P, repetitions]`."""

    alone: Sequence[float]
    together: Sequence[Sequence[float]]


def slowdown(turns: Sequence[Turn]) -> float:
    """How many times as long a block takes where all ranks compute, each repetition as long as its slowest rank.

    The median of the turns, of which each compares what was measured within a moment. A mean would be spoiled by one
    turn that other work disturbs, and the least of them would leave out what ranks always do to each other.
    """

    def times(turn: Turn) -> float:
        slowest = [max(of_ranks) for of_ranks in zip(*turn.together, strict=True)]
        return statistics.median(slowest) / statistics.median(turn.alone)

    return max(1.0, statistics.median(map(times, turns)))


def combined(probes: Sequence[Probe]) -> Probe:
    """Medians of several, and the calls of all.

    Of an even number the better one of the two in the middle: what disturbs a probe makes it slower, never faster.
    """

    def fast(rate: Callable[[Probe], float]) -> float:
        return statistics.median_high(map(rate, probes))

    return Probe(
        linear_flops_per_s=fast(lambda each: each.linear_flops_per_s),
        attention_flops_per_s=fast(lambda each: each.attention_flops_per_s),
        memory_bytes_per_s=fast(lambda each: each.memory_bytes_per_s),
        together=statistics.median_low(each.together for each in probes),
        calls=tuple(call for each in probes for call in each.calls),
    )


def measured(base: Profile, seen: Sequence[Seen], probe: Probe, words: str) -> Profile:
    """Rates by videos that have been seen of one layout, and by a probe of its ranks; the rest as it was."""
    rates = {name: _of_probe(getattr(probe, name)) for name in ("linear_flops_per_s", "attention_flops_per_s")}
    layout = seen[0].setup.layout
    here = probed(base.with_quantities(words, **rates), probe, layout)
    return calibrated_by_videos(here, seen, words, HELD)


def probed(profile: Profile, probe: Probe, layout: Layout, together: float = 1.0) -> Profile:
    """With memory and links as a layout's own ranks have them, and their arithmetic `together` times as slow.

    All-to-all goes over what counts as the link of a node, and what passes Ulysses groups over the network, wherever
    the ranks are: each is what was probed.
    """
    changed = {name: _slowed(name, profile.quantities[name], together) for name in OF_A_RANK}
    changed["memory_bytes_per_s"] = _of_probe(probe.memory_bytes_per_s)
    changed |= _link("link", "all_to_all", probe.calls) | _link("network", "all_gather", probe.calls)
    alike = replace(profile, ranks_per_node=layout.ulysses, network_is_shared=False)
    return alike.with_quantities(profile.words, **changed)


def _slowed(name: str, quantity: Quantity, times: float) -> Quantity:
    return quantity.scaled(times if name.endswith("_s") and "_per_" not in name else 1 / times)


def _link(name: str, collective: Collective, calls: Sequence[CallTime]) -> dict[str, Quantity]:
    """The quantities of a link by the calls that went over it; none if there were none."""
    own = [call for call in calls if call.collective == collective]
    if not own:
        return {}
    bytes_per_s, call_s = fit(own)
    off = [call.seconds / (call_s + call.bytes_sent / bytes_per_s) for call in own]
    fast, slow = min(1.0, *off), max(1.0, *off)
    return {
        f"{name}_bytes_per_s": _of_probe(bytes_per_s, slow, 1 / fast),
        f"{name}_call_s": _of_probe(call_s, 1 / fast, slow),
    }


def fit(calls: Sequence[CallTime]) -> tuple[float, float]:
    """Bytes a second of a link, and seconds of a call beside them: least squares of relative errors, none negative.

    Of calls of one size the median counts, as in `combined`.
    """
    of_size: defaultdict[int, list[float]] = defaultdict(list)
    for call in calls:
        of_size[call.bytes_sent].append(call.seconds)
    middle = {size: statistics.median_low(seconds) for size, seconds in of_size.items()}
    rows = [(1 / seconds, size / seconds) for size, seconds in middle.items()]
    aa, ab, bb, at, bt = (sum(each) for each in zip(*[(a * a, a * b, b * b, a, b) for a, b in rows], strict=True))
    of_calls, of_bytes = at * bb - bt * ab, bt * aa - at * ab  # both times the determinant
    if of_bytes <= EQUAL * at * ab:  # more bytes take no longer
        return FAST, at / aa
    if of_calls <= 0:
        return bb / bt, 0.0
    determinant = aa * bb - ab * ab
    return determinant / of_bytes, of_calls / determinant


def _of_probe(value: float, below: float = 1.1, above: float = 1.1) -> Quantity:
    return Quantity(value=value, low=value / below, high=value * above, source="a probe of the ranks")
