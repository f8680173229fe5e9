"""Join frames of rendered videos into one picture, a row a video.

resca render jobs/demo/prompts.txt --out out/frames
python -m jobs.demo.strip --videos out/frames/videos --picture jobs/demo/frames.png
"""

from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import tyro


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A picture of some evenly spaced frames of every MP4 in a directory."""

    videos: Path
    picture: Path
    frames: int = 6
    """Frames of each video."""


def frame_strip(videos: list[Path], num_frames: int) -> np.ndarray:
    """Frames side by side `[videos * H, num_frames * W, 3]`, from first to last."""
    rows = []
    for path in videos:
        video = imageio.imread(path, plugin="FFMPEG")
        rows.append(film_strip(video, num_frames))
    return np.concatenate(rows, axis=0)


def film_strip(video: np.ndarray, num_frames: int) -> np.ndarray:
    """Evenly spaced frames of a video `[F, H, W, 3]` side by side, from first to last; no more than it has."""
    places = np.linspace(0, len(video) - 1, min(num_frames, len(video))).round().astype(int)
    return np.concatenate(list(video[places]), axis=1)


def main(options: Strip) -> None:
    """Write the picture."""
    videos = sorted(options.videos.glob("*.mp4"))
    if not videos:
        raise SystemExit(f"no MP4 in {options.videos}")
    imageio.imwrite(options.picture, frame_strip(videos, options.frames))


if __name__ == "__main__":
    main(tyro.cli(Strip))
