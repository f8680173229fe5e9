"""What is taken to be known of GPUs and links: each value with how far it may be wrong, and with its source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A value, what it may be at the least and at the most, and who says so."""

    value: float
    low: float
    high: float
    source: str

    def __post_init__(self) -> None:
        assert self.low <= self.value <= self.high, self

    def scaled(self, factor: float) -> "Quantity":
        """All three times as much."""
        return replace(self, value=self.value * factor, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What decides seconds. Those of a device and of its host are of one rank; links count bytes in one direction."""

    linear_flops_per_s: float
    attention_flops_per_s: float
    decode_flops_per_s: float
    memory_bytes_per_s: float
    block_launch_s: float
    """In which a host launches the kernels of a block, for one pass."""
    step_s: float
    """What a step takes beside the model: the scheduler, and what a cache adds up."""
    encode_s: float
    tail_pixel_s: float
    """Seconds of one core behind the last decoded frame, for a pixel of all frames."""
    publish_s: float
    load_s: float
    """From an empty place to a gang that renders."""
    link_bytes_per_s: float
    link_call_s: float
    network_bytes_per_s: float
    network_call_s: float


NAMES = tuple(field.name for field in fields(Rates))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A kind of device in nodes of some, and the links between ranks: within a node, and from node to node."""

    words: str
    quantities: Mapping[str, Quantity]
    """One for each of `Rates`."""
    memory_bytes: float
    cores: float
    """Of the host, for each rank."""
    ranks_per_node: int
    network_is_shared: bool
    """Whether all ranks of a node send to others over one adapter."""
    launches_overlap: bool = True
    """Whether a host goes on to the next kernel while one runs, as with GPUs; else each takes its launch longer."""

    @property
    def rates(self) -> Rates:
        return Rates(**{name: self.quantities[name].value for name in NAMES})

    def varied(self) -> Iterator[tuple[Rates, Rates]]:
        """For each quantity the rates with it at its least and at its most, all others as they are."""
        for name in NAMES:
            quantity = self.quantities[name]
            if quantity.low < quantity.high:
                yield replace(self.rates, **{name: quantity.low}), replace(self.rates, **{name: quantity.high})

    def with_quantities(self, words: str, **changed: Quantity) -> "Profile":
        """The same with some of them replaced."""
        return replace(self, words=words, quantities={**self.quantities, **changed})
