"""Says what a video or an image of a demo model shows, by looking at it; nothing here is learned.

Legend: F frames, H height, W width, C = 3 colour channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.demo.scenes import CLASSES, COLOURS, DIRECTIONS, SHAPES, Scene, scene_of, shape_mask

COLOUR_TOLERANCE = 0.30  # distance in RGB at which a pixel no longer counts as a palette colour
SATURATION = 0.35  # below it, only bright pixels (white) are part of a shape
MIN_AREA = 0.012  # of the frame
MIN_OVERLAP = 0.70  # intersection over union with the ideal shape
MIN_TRAVEL = 0.12  # of the frame, between the first and the last quarter of the video


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What the oracle sees; None where it is not sure."""

    shape: str | None
    colour: str | None
    direction: str | None

    def matches(self, scene: Scene) -> bool:
        """Whether shape, colour and direction are those of the caption."""
        return (self.shape, self.colour, self.direction) == (scene.shape, scene.colour, scene.direction)

    def is_of(self, prompt: str) -> bool | None:
        """Whether this is what a caption or a class says; None for a prompt that is neither."""
        if prompt in CLASSES:
            return f"{self.colour} {self.shape}" == prompt
        scene = scene_of(prompt)
        return None if scene is None else self.matches(scene)


def look(video: Tensor) -> Sighting:
    """Look at frames `[F, H, W, C]` in 0..1."""
    labels = palette_labels(video)
    counts = torch.stack([(labels == index).sum() for index in range(len(COLOURS))])
    colour = int(counts.argmax())
    masks = labels == colour
    visible = [mask for mask in masks if mask.float().mean() >= MIN_AREA]
    if len(visible) < len(masks) / 2:
        return Sighting(shape=None, colour=None, direction=None)
    return Sighting(shape=name_shape(visible), colour=list(COLOURS)[colour], direction=name_direction(visible))


def palette_labels(video: Tensor) -> Tensor:
    """The palette colour of each pixel `[F, H, W]`, or -1 for the background."""
    palette = torch.tensor(list(COLOURS.values()))
    distance, label = torch.cdist(video.reshape(-1, 3), palette).min(-1)
    bright = video.reshape(-1, 3).amin(-1) > 0.75
    saturated = video.reshape(-1, 3).amax(-1) - video.reshape(-1, 3).amin(-1) > SATURATION
    shape = (distance < COLOUR_TOLERANCE) & (bright | saturated)
    return torch.where(shape, label, -1).reshape(video.shape[:-1])


def name_shape(masks: list[Tensor]) -> str | None:
    """The shape whose ideal outline, fitted to each mask's box, overlaps best over all frames."""
    overlaps = torch.tensor([_overlaps(mask) for mask in masks]).mean(0)
    return SHAPES[int(overlaps.argmax())] if overlaps.max() >= MIN_OVERLAP else None


def name_direction(masks: list[Tensor]) -> str | None:
    """The direction in which the centre moves, if it clearly moves along one axis."""
    centres = torch.stack([_centre(mask) for mask in masks])
    quarter = max(1, len(centres) // 4)
    travel = centres[-quarter:].mean(0) - centres[:quarter].mean(0)
    along, across = travel.abs().max(), travel.abs().min()
    if along < MIN_TRAVEL * masks[0].shape[0] or across > 0.5 * along:
        return None
    axis = int(travel.abs().argmax())
    sign = int(travel[axis].sign())
    step = (sign, 0) if axis == 0 else (0, sign)
    return next(name for name, direction in DIRECTIONS.items() if direction == step)


def _centre(mask: Tensor) -> Tensor:
    """The centre (x, y) of a mask `[H, W]` in pixels."""
    rows, columns = mask.nonzero().float().unbind(1)
    return torch.stack([columns.mean(), rows.mean()])


def _overlaps(mask: Tensor) -> list[float]:
    """Intersection over union with the ideal of each shape, at the mask's own place and height."""
    rows, columns = mask.nonzero().float().unbind(1)
    (top, bottom), (left, right) = (axis.quantile(torch.tensor([0.01, 0.99])).tolist() for axis in (rows, columns))
    middle, half = ((left + right + 1) / 2, (top + bottom + 1) / 2), (bottom - top + right - left + 2) / 4
    overlaps = []
    for shape in SHAPES:
        ideal = shape_mask(shape, *middle, half * (1 / 0.9 if shape == "square" else 1.0), *mask.shape) > 0.5
        overlaps.append(float((mask & ideal).sum() / (mask | ideal).sum()))
    return overlaps
