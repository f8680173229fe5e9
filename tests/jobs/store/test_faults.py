"""Whatever the system refuses where bytes are written is the storage's or the machine's fault, never the video's."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.failure import FailureKind, classify
from jobs.store.faults import MachineError, StorageError, writing
from jobs.store.local import LocalStorage
from jobs.store.mp4 import write_video
from jobs.store.open import open_storage
from jobs.store.publish import attempt_place, publish_item
from tests.jobs.store.example import item, publish, settings, sidecar_of

ROOT = Path(__file__).parents[3]
OF_ITS_NAME = {errno.EISDIR, errno.ENAMETOOLONG}
OF_THE_MACHINE = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EPIPE, errno.ENOEXEC, errno.E2BIG}
Place = Callable[[LocalStorage, Path], object]


def make_a_folder(storage: LocalStorage, file: Path) -> None:
    with storage.workplace("attempts/0000-ab"):
        pass


def encode(storage: LocalStorage, file: Path) -> None:
    with writing(file):
        write_video(np.zeros((1, 16, 16, 3), np.uint8), file, fps=8)


# Where bytes are written, and what of the system is asked for it.
PLACES: dict[str, tuple[str, Place]] = {
    "the attempt's folder": ("os.mkdir", make_a_folder),
    "the MP4, by ffmpeg": ("", encode),
    "a video's bytes on disk": ("os.fsync", lambda storage, file: storage.publish(file, "videos/a.mp4")),
    "a video's name": ("os.replace", lambda storage, file: storage.publish(file, "videos/a.mp4")),
    "a sidecar": ("pathlib.Path.write_bytes", lambda storage, file: storage.write("videos/a.json", b"{}")),
    "the ledger": ("os.fsync", lambda storage, file: storage.append("ledger/1.jsonl", b"{}\n", 0)),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_error_of_the_system_at_every_place_is_charged_to_storage_or_machine(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refused, write = PLACES[place]
    for number in errno.errorcode:
        storage, file = LocalStorage(tmp_path / str(number)), tmp_path / "file"
        file.write_bytes(b"frames")
        storage.write("ledger/1.jsonl", b"")
        with monkeypatch.context() as patch:
            if refused:
                patch.setattr(refused, raising(number))
            else:
                patch.setenv("IMAGEIO_FFMPEG_EXE", str(complaining(tmp_path / "ffmpeg", os.strerror(number))))
            with pytest.raises(OSError) as caught:
                write(storage, file)
        assert classify(caught.value) is expected(number, is_of_ffmpeg=not refused), errno.errorcode[number]
        if number not in OF_ITS_NAME:
            assert os.strerror(number) in str(caught.value)


def expected(number: int, *, is_of_ffmpeg: bool) -> FailureKind:
    if number in OF_ITS_NAME:
        return FailureKind.ITEM
    is_of_machine = number in OF_THE_MACHINE or (is_of_ffmpeg and number == errno.EINVAL)  # which it says of options
    return FailureKind.INFRASTRUCTURE if is_of_machine else FailureKind.STORAGE


def raising(number: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def complaining(path: Path, reason: str) -> Path:
    """An ffmpeg that cannot write its file."""
    path.write_text(f'#!/bin/sh\necho "[out#0/mp4] Error writing trailer: {reason}" >&2\nexit 228\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("limit", [100, 1500], ids=["of the first bytes", "of the end"])
def test_a_file_size_limit_is_a_fault_of_the_storage(tmp_path: Path, limit: int):
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from jobs.store.faults import writing; from jobs.store.mp4 import write_video\n"
        "with writing(sys.argv[1]): write_video(np.zeros((9, 64, 64, 3), np.uint8), Path(sys.argv[1]), fps=8)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "v.mp4")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"jobs.store.faults.StorageError: {tmp_path / 'v.mp4'} cannot be written: File too large"
    assert not list(tmp_path.iterdir())


def test_an_ffmpeg_that_is_killed_is_a_fault_of_the_machine_and_says_so(tmp_path: Path, monkeypatch):
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    with pytest.raises(MachineError, match=r"cannot write video .*v\.mp4.part: ffmpeg was ended by SIGKILL"):
        write_video(np.zeros((1, 16, 16, 3), np.uint8), tmp_path / "v.mp4", fps=8)


def test_latents_that_cannot_be_written_are_a_fault_of_the_storage(tmp_path: Path):
    batch, one, storage = settings(tmp_path, save_latents=True), item(), open_storage(tmp_path)
    frames = iter([np.zeros((5, 16, 16, 3), np.uint8)])
    with pytest.raises(StorageError, match="cannot be written"), attempt_place(storage, one) as place:
        (place / "latents").symlink_to("/proc/none/latents")
        publish_item(storage, place, batch, one, frames, torch.zeros(1), lambda *facts: sidecar_of(batch, one, *facts))
    assert not (tmp_path / "videos").exists()


def test_a_video_that_is_not_what_was_asked_for_is_the_videos_own_fault(tmp_path: Path):
    batch, one, storage = settings(tmp_path), item(num_frames=9), open_storage(tmp_path)
    frames = iter([np.zeros((5, 16, 16, 3), np.uint8)])
    with pytest.raises(OSError, match="not \\(9, 16, 16\\)") as caught, attempt_place(storage, one) as place:
        publish_item(storage, place, batch, one, frames, torch.zeros(1), lambda *facts: sidecar_of(batch, one, *facts))
    assert classify(caught.value) is FailureKind.ITEM


def test_videos_on_another_file_system_are_copied_and_whole_or_absent(tmp_path: Path):
    elsewhere = Path("/dev/shm") / f"resca-{os.getpid()}"
    elsewhere.mkdir()
    try:
        if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is only one file system here")
        (tmp_path / "videos").symlink_to(elsewhere)
        batch, one = settings(tmp_path, save_latents=True), item()
        sidecar = publish(batch, one)
        assert open_storage(tmp_path).digest(f"{one.name}.mp4") == sidecar.sha256
        assert sorted(path.suffix for path in elsewhere.iterdir()) == [".json", ".mp4", ".safetensors", ".webp"]
        assert not list((tmp_path / "attempts").iterdir())
    finally:
        for path in elsewhere.iterdir():
            path.unlink()
        elsewhere.rmdir()
