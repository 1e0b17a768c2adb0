"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from robustdml.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for step in range(60):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12 * 2**20 + 4096 * step)  # a little larger each time: no freed block fits by chance
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    found = subprocess.run([sys.executable, "-c", STEPS, mode], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_steps_do_not_ask_the_system_for_pages_again():
    assert page_faults("keep") < page_faults("default") / 10
