"""What hangs where Python cannot interrupt it ends all the same: at its deadline, or by a signal."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

# A lock taken twice holds the main thread in C, as Ray does: no handler of Python's gets its turn.
HANGS = """
import ctypes, os, sys, tempfile
from cluster.signals import bounded, ending_in_order
from cluster.stderr import stderr_into

lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with ending_in_order(), bounded(float(sys.argv[1]), lambda: os._exit(33)), stderr_into(tempfile.TemporaryFile()):
    print("hangs", flush=True)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)
"""

# As at the end: one signal is noted, a second ends the process.
ENDS = """
import os, signal, sys, time
from cluster.signals import bounded, handled, take_note

with handled({signal.SIGTERM: take_note, signal.SIGINT: take_note}), bounded(60, lambda: os._exit(33)):
    print("hangs", flush=True)
    time.sleep(float(sys.argv[1]))
print("ended")
"""


def start(program: str, argument: str) -> subprocess.Popen[str]:
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(
        [sys.executable, "-c", program, argument],
        cwd=CHECKOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **output,
    )
    assert process.stdout is not None and process.stdout.readline() == "hangs\n"
    return process


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_what_hangs_in_c(signum: signal.Signals, code: int):
    process = start(HANGS, "600")
    time.sleep(0.5)  # what it does last before it hangs
    process.send_signal(signum)
    time.sleep(0.1)
    process.send_signal(signum)  # or two seconds after the first
    assert process.communicate(timeout=60)[0] == f"Stopped by {signum.name}.\n"
    assert process.returncode == code


def test_a_deadline_ends_what_hangs_in_c():
    process = start(HANGS, "0.2")
    process.communicate(timeout=60)
    assert process.returncode == 33


def test_the_first_signal_lets_an_end_be_finished():
    process = start(ENDS, "0.5")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "ended\n"
    assert process.returncode == 0


def test_the_second_signal_ends_the_end():
    process = start(ENDS, "600")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.communicate(timeout=60)[0] == "Stopped by SIGINT.\n"
    assert process.returncode == 130
