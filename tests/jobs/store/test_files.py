"""Files that are whole or absent, on file systems of all kinds."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.store.files import check_file, publish, sync_directory, write_text


def test_a_file_system_that_cannot_sync_directories_does_all_the_rest(tmp_path, monkeypatch):
    sync_directory(Path("/proc/self"))  # one that says so
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "part").write_text("frames")
    publish(tmp_path / "part", tmp_path / "video.mp4")
    write_text(tmp_path / "rows.json", "[]")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.json", "video.mp4"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_file(tmp_path / "pipe", "--json")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    write_text(tmp_path / "pipe", "[]")
    assert reader.communicate(timeout=20)[0] == "[]" and (tmp_path / "pipe").is_fifo()


def test_standard_output_as_a_file_is_not_replaced(tmp_path):
    code = "from pathlib import Path; from jobs.store.files import write_text; write_text(Path('/dev/fd/1'), '[]')"
    with (tmp_path / "told").open("wb") as told:
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], stdout=told, timeout=60)
    assert (tmp_path / "told").read_text() == "[]"


def test_a_disk_that_fails_while_it_syncs_a_directory_is_told(tmp_path, monkeypatch):
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_directory(tmp_path)
