"""What would lose videos is found before the first is rendered: two frames are made, published and removed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import INFRASTRUCTURE, BadInput
from jobs.store.faults import MachineError, StorageError
from jobs.store.medium import MEDIA, VIDEO, Medium
from jobs.store.open import open_storage
from jobs.store.publish import attempt_place
from jobs.store.rehearsal import FOLDERS, check_encoder, check_folders, rehearse
from tests.jobs.store.example import item


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(
    ("target", "why"), [("/proc/tty", "No such file"), ("nowhere", "not a directory"), ("", "not a directory")]
)
def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path, folder: str, target: str, why: str):
    """It is on a file system that refuses, a link to nothing, or a file."""
    place = tmp_path / folder
    if target:
        place.symlink_to(target)
    else:
        place.write_bytes(b"")
    with pytest.raises(BadInput, match=f"output directory {place} cannot be written: .*{why}"):
        check_folders(open_storage(tmp_path))
    assert list(tmp_path.iterdir()) == [place]


def test_folders_that_are_not_there_are_not_made(tmp_path: Path):
    check_folders(open_storage(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def without_x264(path: Path) -> None:
    path.write_text("#!/bin/sh\ncat >/dev/null\necho \"Unknown encoder 'libx264'\" >&2\nexit 8\n")
    path.chmod(0o755)


def not_executable(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (without_x264, "Unknown encoder 'libx264'"),
        (lambda path: None, "No such file or directory"),
        (not_executable, "Permission denied"),
    ],
)
def test_an_ffmpeg_that_makes_no_videos_is_found(tmp_path: Path, monkeypatch, make: Callable[[Path], None], why: str):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    make(tmp_path / "ffmpeg")
    with pytest.raises(MachineError, match=r"no video can be made on this machine: .*set IMAGEIO_FFMPEG_EXE") as caught:
        check_encoder(VIDEO)
    assert why in str(caught.value) and caught.value.exit_code == INFRASTRUCTURE


@pytest.mark.parametrize("medium", MEDIA.values(), ids=MEDIA)
def test_a_small_file_is_published_and_nothing_is_left(tmp_path: Path, medium: Medium):
    storage = open_storage(tmp_path)
    with attempt_place(storage, item()) as place:
        rehearse(storage, place, check_encoder(medium))
    assert not list((tmp_path / "videos").iterdir()) and not list((tmp_path / "attempts").iterdir())


def test_a_storage_that_would_refuse_a_video_refuses_a_small_file(tmp_path: Path):
    storage = open_storage(tmp_path)
    (tmp_path / "videos").symlink_to("/proc/tty")
    with (
        pytest.raises(StorageError, match=f"{tmp_path}/videos cannot be written"),
        attempt_place(storage, item()) as place,
    ):
        rehearse(storage, place, b"a small file")
    assert not list((tmp_path / "attempts").iterdir())
