"""Seconds of one video: steps by their operations, exchanges and fixed costs, and what stands before and behind them.

Legend: N tokens of a video, n of a rank, L text tokens that every rank holds, d width, U x R Ulysses and Ring.
"""

from dataclasses import dataclass, fields, replace

from caching.recipe.tokens import TrajectoryMedoids
from jobs.errors import BadInput
from jobs.predict.profile import Profile, Rates
from jobs.predict.shape import ModelShape, Video
from jobs.request.passes import count_passes
from parallel.collectives import sent_bytes
from parallel.layout import Layout

ALONE = Layout()
STREAMS = 2  # modules of a block that a method caches: attention and feed-forward
# Four tensors are laid out anew before and behind an all-to-all: so many times an element is read or written. What a
# turn of Ring gives is merged in float32, operation by operation: so many bytes an element.
LAID_OUT, MERGED_BYTES = 16, 38
# Calls around the loop: what is to be done, the texts and the final latents, and the last tile that is decoded.
CALLS_BESIDE = 6
CHANNELS, FLOAT32_BYTES = 3, 4  # of a frame, and of a latent
OF_MODEL = ("output", "residual", "stack")  # features of which a sparse step computes nothing


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Seconds of a video, by what they are spent on; `fixed` are those that no rank takes off."""

    linear: float = 0.0
    attention: float = 0.0
    exchange: float = 0.0
    fixed: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    host: float = 0.0

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})

    def times(self, factor: float) -> "Parts":
        return Parts(**{name: getattr(self, name) * factor for name in NAMES})

    @property
    def loop(self) -> float:
        """Of the denoising loop."""
        return self.linear + self.attention + self.exchange + self.fixed

    @property
    def total(self) -> float:
        return self.loop + self.encode + self.decode + self.host

    @property
    def limit(self) -> str:
        """What most of the time goes to."""
        kinds = {
            "arithmetic": self.linear + self.attention,
            "link": self.exchange,
            "fixed costs": self.fixed,
            "decoding": self.decode,
            "host": self.encode + self.host,
        }
        return max(kinds, key=lambda kind: kinds[kind])


NAMES = tuple(field.name for field in fields(Parts))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model, what it renders, and how ranks share it.

    `weight_bytes` are those of a transformer whose blocks are gathered before they run; 0 where each rank has them
    all. Where decoding is not shared, every rank decodes all tiles.
    """

    shape: ModelShape
    video: Video
    layout: Layout = ALONE
    weight_bytes: int = 0
    shares_decoding: bool = True

    def check(self) -> None:
        """Raises BadInput for a method with sparse steps that nothing here predicts."""
        method = self.video.method
        if not method.schedule.has_sparse_steps or isinstance(method.tokens, TrajectoryMedoids):
            return
        if method.tokens is None and method.feature in (*OF_MODEL, "module"):
            return
        raise BadInput(
            f"method {method.name}: what its sparse steps take is not predicted; it is of methods that compute "
            "nothing in them (auto, easycache), of resca, and of those that cache modules (taylorseer, fora)"
        )

    @property
    def tokens(self) -> int:
        """The most that a rank has; methods with token ranges deal out whole ones."""
        num_ranks, ranges = self.layout.sequence_size, self.video.method.shards or 0
        if not ranges:
            return -(-self.video.num_tokens // num_ranks)
        return -(-ranges // num_ranks) * -(-self.video.num_tokens // ranges)

    @property
    def passes(self) -> int:
        """That a rank computes in each step."""
        return -(-self.shape.num_passes // self.layout.cfg)


def seconds_of(setup: Setup, profile: Profile, rates: Rates | None = None) -> Parts:
    """One video, from its prompt to its file, of a setup that has been checked."""
    rates = rates or profile.rates
    video, shape = setup.video, setup.shape
    num_dense, num_sparse, num_proxied = count_passes(video.method, video.steps)
    if num_sparse:  # where a next model takes over, one more is dense
        more = min(num_sparse, shape.num_transformers - 1)
        num_dense, num_sparse = num_dense + more, num_sparse - more
    loop = dense_step(setup, profile, rates).times(num_dense) + Parts(fixed=rates.step_s).times(num_sparse)
    if num_sparse:
        loop += sparse_pass(setup, profile, rates, num_sparse, num_proxied).times(setup.passes)
    return loop + _around(setup, profile, rates)


def _around(setup: Setup, profile: Profile, rates: Rates) -> Parts:
    """Encoding, decoding, and what the host does behind the last frame."""
    video, decoder = setup.video, setup.shape.decoder
    num_ranks = setup.layout.world_size
    sharers = num_ranks if setup.shares_decoding else 1
    decoded = decoder.flops(video.height, video.width, video.num_frames, sharers) if decoder else 0.0
    cores = profile.cores * min(num_ranks, profile.ranks_per_node)
    return Parts(
        exchange=_beside(setup, profile, rates),
        encode=rates.encode_s,
        decode=decoded / rates.decode_flops_per_s,
        host=video.pixels * rates.tail_pixel_s / cores + rates.publish_s,
    )


def _beside(setup: Setup, profile: Profile, rates: Rates) -> float:
    """What ranks say to each other before and behind the loop; tiles but the last go while others are decoded."""
    shape, video, layout = setup.shape, setup.video, setup.layout
    if layout.world_size == 1:
        return 0.0
    num_bytes = setup.tokens * shape.numbers.patch**2 * shape.numbers.latent_channels * FLOAT32_BYTES
    if shape.decoder and setup.shares_decoding:
        tiles = list(shape.decoder.tiles(video.height, video.width, video.num_frames))
        num_bytes += max(tiles) * CHANNELS * shape.number_bytes if len(tiles) > 1 else 0
    crosses = layout.world_size > profile.ranks_per_node
    one, call = (_call_s(size, profile, rates, crosses, 1) for size in (num_bytes, 0))
    return one + (CALLS_BESIDE - 1) * call


def dense_step(setup: Setup, profile: Profile, rates: Rates) -> Parts:
    """All passes that a rank computes, and what the halves of guidance exchange."""
    layout = setup.layout
    step = block_pass(setup, profile, rates).times(setup.shape.numbers.blocks * setup.passes)
    step += Parts(fixed=rates.step_s)
    if layout.cfg > 1:
        crosses = layout.world_size > profile.ranks_per_node
        numbers = setup.shape.numbers
        num_bytes = setup.tokens * numbers.patch**2 * numbers.latent_channels * setup.shape.number_bytes
        step += Parts(exchange=_call_s(num_bytes, profile, rates, crosses, layout.ulysses))
    return step


def block_pass(setup: Setup, profile: Profile, rates: Rates) -> Parts:
    """One block for one pass on the rank with the most tokens; at least as long as its launches take."""
    shape, layout, own = setup.shape, setup.layout, setup.tokens
    width, text = shape.numbers.width, shape.text_tokens
    linear = 24 * (own + text) * width**2 / rates.linear_flops_per_s
    keys = own * layout.sequence_size + text
    attention = 4 * width * (own + text / layout.ulysses) * keys / rates.attention_flops_per_s
    exchange = _ulysses(setup, rates) + _ring(setup, profile, rates, attention)
    busy = linear + attention + exchange
    exchange += max(0.0, _gathering(setup, profile, rates) - busy)
    waits = _waits(linear + attention + exchange, profile, rates)
    return Parts(linear=linear, attention=attention, exchange=exchange, fixed=waits)


def _waits(busy: float, profile: Profile, rates: Rates) -> float:
    """What launching a block takes beside what it computes."""
    return max(0.0, rates.block_launch_s - (busy if profile.launches_overlap else 0.0))


def laid_out_bytes(layout: Layout, number_bytes: int) -> int:
    """Of memory, for each element of a rank's tokens, around the all-to-all of a block."""
    return LAID_OUT * number_bytes if layout.ulysses > 1 else 0


def merged_bytes(layout: Layout) -> int:
    """Of memory, for each element of a rank's tokens, where Ring merges what its turns give."""
    return MERGED_BYTES * (layout.ring - 1)


def _ulysses(setup: Setup, rates: Rates) -> float:
    """Query and output with the text, key and value without it; nothing else runs meanwhile."""
    ulysses, width = setup.layout.ulysses, setup.shape.numbers.width
    if ulysses == 1:
        return 0.0
    joint, image = setup.tokens + setup.shape.text_tokens, setup.tokens
    payloads = [tokens * width * setup.shape.number_bytes for tokens in (joint, image, image, joint)]
    sent = sum(sent_bytes("all_to_all", payload, ulysses) for payload in payloads)
    laid_out_s = laid_out_bytes(setup.layout, setup.shape.number_bytes) * image * width / rates.memory_bytes_per_s
    return sent / rates.link_bytes_per_s + len(payloads) * rates.link_call_s + laid_out_s


def _ring(setup: Setup, profile: Profile, rates: Rates, attention: float) -> float:
    """What of passing keys and values on does not hide behind the attention to those that are there, and merging."""
    layout = setup.layout
    turns = layout.ring - 1
    if not turns:
        return 0.0
    elements = setup.tokens * setup.shape.numbers.width
    num_bytes = 2 * elements * setup.shape.number_bytes
    crosses = layout.sequence_size > profile.ranks_per_node
    call = _call_s(num_bytes, profile, rates, crosses, layout.ulysses)
    merged_s = merged_bytes(layout) * elements / rates.memory_bytes_per_s
    return turns * max(0.0, call - attention / layout.ring) + merged_s


def _gathering(setup: Setup, profile: Profile, rates: Rates) -> float:
    """In which the next block's weights come, while this one runs."""
    if not setup.weight_bytes:
        return 0.0
    world = setup.layout.world_size
    num_bytes = setup.weight_bytes / setup.shape.numbers.blocks * (world - 1) / world
    crosses = world > profile.ranks_per_node
    return _call_s(num_bytes, profile, rates, crosses, min(world, profile.ranks_per_node))


def _call_s(num_bytes: float, profile: Profile, rates: Rates, crosses: bool, senders: int) -> float:
    """Seconds of a call, in which so many ranks of a node send to others."""
    if not crosses:
        return num_bytes / rates.link_bytes_per_s + rates.link_call_s
    each = rates.network_bytes_per_s / (senders if profile.network_is_shared else 1)
    return num_bytes / each + rates.network_call_s


def sparse_pass(setup: Setup, profile: Profile, rates: Rates, num_sparse: int, num_proxied: int) -> Parts:
    """What all sparse steps compute of one pass, beside the steps' own fixed costs."""
    method, blocks = setup.video.method, setup.shape.numbers.blocks
    if isinstance(method.tokens, TrajectoryMedoids):
        proxies = method.tokens.clusters + setup.shape.text_tokens
        block = 24 * proxies * setup.shape.numbers.width**2 / rates.linear_flops_per_s
        return _launched(block, profile, rates).times(blocks * num_proxied)
    if method.feature in OF_MODEL:
        return Parts()
    kept = STREAMS * (method.predictor.order + 2) * setup.tokens * setup.shape.numbers.width
    kept_s = kept * setup.shape.number_bytes / rates.memory_bytes_per_s
    return _launched(kept_s, profile, rates).times(blocks * num_sparse)


def _launched(block_s: float, profile: Profile, rates: Rates) -> Parts:
    return Parts(linear=block_s, fixed=_waits(block_s, profile, rates))


def interval_of(setup: Setup, profile: Profile) -> tuple[float, float]:
    """The least and the most seconds, as far as the profile's quantities may be wrong, each apart from the others."""
    middle = seconds_of(setup, profile).total
    below = above = 0.0
    for pair in profile.varied():
        changes = [seconds_of(setup, profile, rates).total - middle for rates in pair]
        below, above = below + min(0.0, *changes) ** 2, above + max(0.0, *changes) ** 2
    return max(0.0, middle - below**0.5), middle + above**0.5


def alone(setup: Setup) -> Setup:
    """The same on one rank."""
    return replace(setup, layout=ALONE, weight_bytes=0)
