"""Write an MP4 so that it is either whole or absent, and look at one that is there."""

import errno
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from jobs.store.faults import MachineError, reason, writing
from jobs.store.files import publish, sha256

# Visually lossless; the videos are small, and what is compared should not be the codec.
CODEC = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "14")
# Players take what is not tagged for BT.601 or for BT.709. `scale` converts, the rest are tags: new releases of ffmpeg
# take them from the frames, older ones from the options.
TO_BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
COLOURS = (
    *("-vf", TO_BT709, "-color_range", "tv"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
)
READY_TO_STREAM = ("-movflags", "+faststart+use_metadata_tags")
# What ffmpeg says of the first video stream of its input, and, again and again, of its progress.
VIDEO_STREAM = re.compile(
    r"^ *Stream #.*?: Video: (?P<codec>\w+).*?, (?P<pixel_format>\w+)(?:\(.*?\))?, (?P<width>\d+)x(?P<height>\d+)"
    r".*?(?:, (?P<fps>[\d.]+) fps.*)?$",
    re.MULTILINE,
)
FRAMES_SO_FAR = re.compile(rb"^frame=\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a decoder sees: frames, size in pixels, frames per second."""

    num_frames: int
    width: int
    height: int
    fps: float
    codec: str
    pixel_format: str


def write_video(
    frames: np.ndarray | Iterable[np.ndarray], path: Path, fps: int, metadata: Mapping[str, str] | None = None
) -> str:
    """Write `frames` (uint8, [F, H, W, 3], H and W even) as H.264 that browsers play, and return the file's sha256.

    Frames may come in pieces, in order; the next is asked for while the encoder takes the one before. The file appears
    under its name only when it is complete and on disk; a failure, of the pieces too, leaves nothing. `metadata` lands
    in the MP4's tags. One writer a path at a time: what a killed writer left behind is overwritten by the next.

    Raises:
        ValueError: frames that H.264 in yuv420p cannot hold.
        MachineError: there is no ffmpeg here, or it cannot encode.
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        _encode(iter([frames] if isinstance(frames, np.ndarray) else frames), partial, fps, metadata or {})
        digest = sha256(partial)
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def probe(path: Path) -> VideoFacts:
    """Decode the whole file and report what is in it.

    Raises OSError for one that does not decode, MachineError if there is no ffmpeg here.
    """
    decoding = [_executable(), "-nostdin", "-i", str(path), "-map", "0:v:0", "-f", "null", "-nostats"]
    try:
        done = subprocess.run([*decoding, "-progress", "pipe:1", "-"], capture_output=True)
    except OSError as error:
        raise MachineError(_cannot_run(decoding[0], error)) from error
    if done.returncode < 0:
        raise MachineError(f"cannot read video {path}: {_ended(done.returncode)}")
    stream = VIDEO_STREAM.search(done.stderr.decode(errors="replace"))
    counts = FRAMES_SO_FAR.findall(done.stdout)
    if done.returncode or stream is None or not counts:
        raise OSError(f"{path} does not decode as a video")
    return VideoFacts(
        num_frames=int(counts[-1]),
        width=int(stream["width"]),
        height=int(stream["height"]),
        fps=float(stream["fps"] or 0),
        codec=stream["codec"],
        pixel_format=stream["pixel_format"],
    )


def encode_two_frames() -> tuple[bytes, VideoFacts]:
    """A whole MP4, and what a decoder sees in it. Raises MachineError where videos cannot be made."""
    what = "the folder for temporary files"
    with writing(what), tempfile.TemporaryDirectory(prefix="resca-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "video.mp4"
        write_video(np.zeros((2, 16, 16, 3), np.uint8), path, fps=8)
        facts = probe(path)
        if facts.num_frames != 2:
            raise MachineError(f"ffmpeg reads {facts.num_frames} frames where it wrote 2")
        return path.read_bytes(), facts


def _check_frames(frames: np.ndarray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames must be uint8 [F, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    num_frames, height, width, _ = frames.shape
    if num_frames < 1 or height < 2 or width < 2 or height % 2 or width % 2:
        raise ValueError(f"frames must be at least one, of even height and width, not {num_frames} of {height}x{width}")


def _encode(pieces: Iterator[np.ndarray], path: Path, fps: int, metadata: Mapping[str, str]) -> None:
    """Raises OSError if ffmpeg does not end well, with what it said (imageio's own writer ignores its exit code)."""
    first = next(pieces, np.zeros((0, 2, 2, 3), np.uint8))
    _check_frames(first)
    # Neither the tags nor what ffmpeg says needs room on a disk, which may be the one that is full.
    with _memory_file() as complaints, _memory_file(_ffmetadata(metadata)) as tags:
        command = [*_ffmpeg(first.shape[1], first.shape[2], fps, tags.fileno()), "-f", "mp4", str(path)]
        with _started(command, complaints, tags) as encoder:
            _feed(encoder, chain([first], pieces), first.shape[1:])
        if encoder.returncode:
            complaints.seek(0)
            raise _encoder_error(path, complaints.read().decode(errors="replace"), encoder.returncode)


def _memory_file(content: bytes = b"") -> BinaryIO:
    """A file without a name or a disk, to be read from its start."""
    file = os.fdopen(os.memfd_create("resca"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def _ffmetadata(metadata: Mapping[str, str]) -> bytes:
    """Tags as ffmpeg reads them from a file, where neither their length nor the locale matters."""
    lines = [";FFMETADATA1", *(f"{_escaped(key)}={_escaped(value)}" for key, value in metadata.items())]
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def _escaped(text: str) -> str:
    """Without NULs, and with a space after a last backslash, by which ffmpeg would not see the end of the line."""
    escaped = re.sub(r"([=;#\\\r\n])", r"\\\1", text.replace("\0", ""))
    return f"{escaped} " if text.endswith("\\") else escaped


def _started(command: list[str], complaints: BinaryIO, tags: BinaryIO) -> subprocess.Popen:
    """The encoder. A file that may not get larger is to be an error of its own, not its end by SIGXFSZ."""
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=complaints, pass_fds=[tags.fileno()], restore_signals=False
        )
    except OSError as error:
        raise MachineError(_cannot_run(command[0], error)) from error


def _cannot_run(executable: str, error: OSError) -> str:
    return f"ffmpeg ({executable}) cannot be run: {reason(error)}"


def _encoder_error(path: Path, complaint: str, code: int) -> OSError:
    """With the number of what the system said, where it did; what else an ffmpeg cannot do is its machine's."""
    lines = [line.strip().rstrip(".") for line in complaint.splitlines() if line.strip()]
    for number in errno.errorcode.keys() - {errno.EINVAL}:  # which ffmpeg also says of options
        if any(line.endswith(f": {os.strerror(number)}") for line in lines):
            return OSError(number, os.strerror(number), str(path))
    return MachineError(f"cannot write video {path}: {'; '.join(lines) or _ended(code)}")


def _ended(code: int) -> str:
    return f"ffmpeg was ended by {signal.Signals(-code).name}" if code < 0 else f"ffmpeg ended with exit code {code}"


def _ffmpeg(height: int, width: int, fps: int, tags: int) -> list[str]:
    """The command that reads frames from stdin and tags from another descriptor, up to its output."""
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    tagged = ["-f", "ffmetadata", "-i", f"pipe:{tags}", "-map_metadata", "1"]
    return [_executable(), "-y", "-v", "error", *source, *tagged, *COLOURS, *CODEC, *READY_TO_STREAM]


def _executable() -> str:
    """Raises MachineError if no ffmpeg is installed."""
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MachineError("no ffmpeg is installed") from error


def _feed(encoder: subprocess.Popen, pieces: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """Give the encoder every frame; if it has ended before, its exit code tells. It is killed if the pieces fail."""
    assert encoder.stdin is not None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder") as writer:
        try:
            with suppress(BrokenPipeError):
                _write(encoder.stdin, writer, pieces, shape)
        except BaseException:
            encoder.kill()  # or the writer might wait for it
            raise
        finally:
            with suppress(BrokenPipeError):
                encoder.stdin.close()


def _write(target: IO[bytes], writer: Executor, pieces: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """Write every piece; the next is made meanwhile."""
    written: Future[int] | None = None
    for piece in pieces:
        _check_frames(piece)
        if piece.shape[1:] != shape:
            raise ValueError(f"frames must all be of one size, not {list(shape)} and {list(piece.shape[1:])}")
        if written:
            written.result()
        written = writer.submit(target.write, np.ascontiguousarray(piece).data.cast("B"))
    if written:
        written.result()
