"""The control of power cuts: a broker for which fsync and its kin do nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = """
int fsync(int fd) { (void)fd; return 0; }
int fdatasync(int fd) { (void)fd; return 0; }
int syncfs(int fd) { (void)fd; return 0; }
void sync(void) {}
int sync_file_range(int fd, long offset, long count, unsigned flags)
{ (void)fd; (void)offset; (void)count; (void)flags; return 0; }
"""


def build_unsynced(folder: Path) -> dict[str, str]:
    """The environment in which a program's flushes do nothing.

    Compiles a library into the folder; raises FileNotFoundError without gcc.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("the control needs gcc")
    library = folder / "unsynced.so"
    words = [compiler, "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(words, input=_SOURCE, text=True, check=True, capture_output=True)
    return {"LD_PRELOAD": str(library)}
