"""Memory that was freed stays with the process; a process of its own, because there is no way back."""

import os
import subprocess
import sys

import pytest

from cluster.heap import CUDA_ALLOCATOR, expand_segments

PROGRAM = """
import resource
import torch
from cluster.heap import keep_freed_memory

def faults_of_a_tensor():
    for _ in range(20):  # until what is kept is large enough
        torch.ones(8 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(8 << 20)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20

without = faults_of_a_tensor()
keep_freed_memory()
print(without, faults_of_a_tensor())
"""


@pytest.mark.parametrize("named", [None, *CUDA_ALLOCATOR])
def test_segments_of_gpu_memory_grow_unless_the_environment_says_something_of_them(monkeypatch, named):
    for name in CUDA_ALLOCATOR:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if named:
        monkeypatch.setenv(named, "max_split_size_mb:512")
    expand_segments()
    said = {name: os.environ[name] for name in CUDA_ALLOCATOR if name in os.environ}
    assert said == ({named: "max_split_size_mb:512"} if named else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_a_tensor_made_again_needs_no_new_pages():
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    without, kept = map(int, printed.stdout.split())
    assert without > 100 and kept < without / 10
