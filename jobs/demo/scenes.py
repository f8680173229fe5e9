"""Procedural captioned videos that the demo model learns: one flat shape moving over a grey background.

Legend: F frames, H height, W width, C = 3 colour channels (red, green, blue in 0..1).
"""

from dataclasses import dataclass
from itertools import product
from random import Random

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "orange": (0.97, 0.55, 0.05),
    "yellow": (0.97, 0.90, 0.15),
    "green": (0.10, 0.70, 0.20),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.12, 0.25, 0.95),
    "purple": (0.62, 0.15, 0.80),
    "white": (0.97, 0.97, 0.97),
}
CLASSES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)  # of single images, by their numbers
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIZES = {"small": 0.19, "large": 0.28}  # half the height of the shape, in frame heights
BACKGROUNDS = ("plain", "gradient", "checkered")
HOLD_OUT_EVERY = 5
PAN = 0.3  # of the frame, that a panning background moves along either side


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The attributes that a caption names."""

    shape: str
    colour: str
    direction: str
    size: str
    background: str

    @property
    def caption(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} moving {self.direction} on a {self.background} background"

    @property
    def still_caption(self) -> str:
        """What a single frame shows: no motion."""
        return f"a {self.size} {self.colour} {self.shape} on a {self.background} background"

    @property
    def held_out(self) -> bool:
        """Whether training never sees this combination of shape, colour and direction.

        A Latin-square rule: one triple in five, so that every pair of attributes is still seen.
        """
        place = (SHAPES.index(self.shape), list(COLOURS).index(self.colour), list(DIRECTIONS).index(self.direction))
        return (place[0] + 2 * place[1] + 3 * place[2]) % HOLD_OUT_EVERY == 0


def all_scenes() -> list[Scene]:
    """Every combination of attributes, 768 in all."""
    return [
        Scene(shape=shape, colour=colour, direction=direction, size=size, background=background)
        for shape, colour, direction, size, background in product(SHAPES, COLOURS, DIRECTIONS, SIZES, BACKGROUNDS)
    ]


def scene_of(caption: str) -> Scene | None:
    """The scene that a caption describes, or None for any other text."""
    return next((scene for scene in all_scenes() if scene.caption == caption), None)


def vocabulary() -> list[str]:
    """Every word that a caption can hold."""
    return sorted({word for scene in all_scenes() for word in scene.caption.split()})


def sample_scenes(count: int, seed: int, *, held_out: bool) -> list[Scene]:
    """`count` scenes drawn evenly from the training set or from the held-out set."""
    scenes = [scene for scene in all_scenes() if scene.held_out is held_out]
    random = Random(seed)
    return [random.choice(scenes) for _ in range(count)]


def draw(
    scene: Scene, seed: int, *, num_frames: int = 41, height: int = 128, width: int = 128, panning: bool = False
) -> Tensor:
    """Draw a scene as `[F, H, W, C]`; the seed places the shape and tints the background, which may move, too."""
    random = Random(seed)
    background = _draw_background(scene.background, random, height, width)
    colour = torch.tensor(COLOURS[scene.colour])
    half = SIZES[scene.size] * height
    frames = []
    for frame, (x, y) in enumerate(_path(scene, random, half, num_frames, height, width)):
        alpha = shape_mask(scene.shape, x, y, half, height, width)[..., None]
        behind = _panned(background, scene.direction, frame / max(num_frames - 1, 1)) if panning else background
        frames.append(alpha * colour + (1 - alpha) * behind)
    return torch.stack(frames)


def shape_mask(shape: str, x: float, y: float, half: float, height: int, width: int) -> Tensor:
    """The antialiased coverage `[H, W]` of a shape centred on (x, y) and `2 * half` pixels high."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx, dy = (columns - x) / half, (rows - y) / half
    if shape == "circle":
        distance = torch.hypot(dx, dy) - 1
    elif shape == "square":
        distance = torch.maximum(dx.abs(), dy.abs()) - 0.9
    elif shape == "triangle":
        distance = torch.maximum(0.894 * dx.abs() - 0.447 * dy - 0.447, dy - 1)
    elif shape == "cross":
        near, far = torch.minimum(dx.abs(), dy.abs()), torch.maximum(dx.abs(), dy.abs())
        distance = torch.maximum(near - 0.33, far - 1)
    else:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    return (0.5 - distance * half).clamp(0, 1)


def _path(scene: Scene, random: Random, half: float, num_frames: int, height: int, width: int):
    """Centres of the shape: about a third of the frame at a constant speed, near the middle, always fully inside."""
    step_x, step_y = DIRECTIONS[scene.direction]
    along, across = (width, height) if step_x else (height, width)
    travel = random.uniform(0.26, 0.34) * along
    middle = along / 2 + _jitter(random, along, half + travel / 2)
    offset = across / 2 + _jitter(random, across, half)
    for frame in range(num_frames):
        progress = frame / max(num_frames - 1, 1) - 0.5
        position = middle + (step_x + step_y) * travel * progress
        yield (position, offset) if step_x else (offset, position)


def _jitter(random: Random, extent: float, margin: float) -> float:
    """A shift from the middle of `extent` that keeps `margin` to both ends."""
    most = min(0.12 * extent, extent / 2 - margin)
    return random.uniform(-most, most)


def _draw_background(kind: str, random: Random, height: int, width: int) -> Tensor:
    """A dim, nearly grey background `[H, W, C]`, still throughout the video."""
    level = random.uniform(0.22, 0.38)
    tint = torch.tensor([random.uniform(-0.04, 0.04) for _ in range(3)])
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    if kind == "plain":
        pattern = torch.zeros(height, width)
    elif kind == "gradient":
        pattern = 0.36 * (rows - 0.5)
    elif kind == "checkered":
        pattern = 0.16 * ((rows * 4).long() + (columns * 4).long()).remainder(2).float() - 0.08
    else:
        raise ValueError(f"unknown background {kind!r}; known: {', '.join(BACKGROUNDS)}")
    return level + pattern[..., None] + tint


def _panned(background: Tensor, direction: str, progress: float) -> Tensor:
    """A background `[H, W, C]` at `progress` (0..1) of its way: along the diagonal, against the shape, and around."""
    distance = -sum(DIRECTIONS[direction]) * PAN * progress
    return background.roll([round(distance * side) for side in background.shape[:2]], (0, 1))
