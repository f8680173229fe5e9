"""Memory that was freed stays with the process; a process of its own, because there is no way back."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch
from parallel.heap import keep_freed_memory

def minor_faults():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def faults_of_one_more_tensor():
    torch.ones(8 << 20)
    before = minor_faults()
    torch.ones(8 << 20)
    return minor_faults() - before

without = faults_of_one_more_tensor()
keep_freed_memory()
print(without, faults_of_one_more_tensor())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_a_tensor_made_again_needs_no_new_pages():
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    without, kept = map(int, printed.stdout.split())
    assert without > 100 and kept < without / 10
