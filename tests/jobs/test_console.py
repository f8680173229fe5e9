"""What commands print goes on, or is dropped, whatever becomes of standard output."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.console import LastingStream, make_console, write_rows
from jobs.driver.standing import Standing
from jobs.driver.view import BatchView
from jobs.errors import InfrastructureError
from jobs.store.usage import Usage

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).parents[2]
START = "import os, sys; from jobs.console import make_console, use_lasting_streams; use_lasting_streams()\n"
TELL = "make_console().print('f\\u00fcr \\u4f60'); print('\\u4f60', file=sys.stderr); sys.exit(0)"


def run(code: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", START + code]
    return subprocess.run(command, cwd=ROOT, timeout=60, stderr=subprocess.PIPE, **options)


def test_letters_outside_the_locale_are_replaced():
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(TELL, stdout=subprocess.PIPE, env=ascii_only)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"f?r ?\n", b"?\n")


def test_what_takes_its_time_is_told_on_standard_error_as_a_line_where_nothing_can_move():
    code = "from jobs.console import under_way\nwith under_way(make_console(stderr=True), 'counting x'): print('row')"
    done = run(code, stdout=subprocess.PIPE)
    assert (done.stdout, done.stderr) == (b"row\n", b"counting x\n")


def test_a_full_disk_behind_standard_output_ends_nothing():
    with Path("/dev/full").open("wb") as full:
        done = run(TELL, stdout=full)
    assert (done.returncode, done.stderr.decode()) == (0, "\u4f60\n")


def test_a_reader_that_is_gone_ends_nothing_not_even_the_help():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("from jobs.__main__ import main; main(['render', '--help'])", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_number_of_a_closed_output_is_no_other_files():
    done = run("sys.exit(open('/dev/null').fileno())", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_pipe_that_was_set_not_to_wait_gets_everything():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    taken = []

    def read() -> None:
        while part := os.read(reading, 1 << 20):
            taken.append(part)

    reader = threading.Thread(target=read)
    with LastingStream(writing, "w") as stream:
        reader.start()
        text = memoryview(b"x" * (1 << 20))
        while text:
            text = text[stream.write(text) :]
    reader.join()
    os.close(reading)
    assert sum(map(len, taken)) == 1 << 20


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_no_bar_goes_into_a_file_whatever_the_environment_says(monkeypatch, capsys, name):
    monkeypatch.setenv(name, "1")
    for console in (make_console(), make_console(stderr=True)):
        assert not console.is_terminal and not console.is_interactive
        with BatchView(console, Standing(2, noun="video", usage=Usage())):
            pass
    assert "\x1b" not in capsys.readouterr().out


def test_rows_that_cannot_be_written_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match=r"rows.json cannot be written: "):
        write_rows(tmp_path / "file" / "rows.json", [])
