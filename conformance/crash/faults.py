"""System calls of a broker that are made to fail: a library that is loaded before all others."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

FOREVER = 1 << 40
SHORT = -1
"""In the place of an errno: a write takes only a part of the octets, and says so."""

# A switch is a file named like the call: errno, calls that still work, calls that fail, the
# offsets between which they do, the end of the file's name. The calls of one process are counted
# from its first one that finds the file; a file that is written anew counts from nothing.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
enum { WRITE, READ, FDATASYNC, FSYNC, FALLOCATE, CALLS };
static const char *names[CALLS] = {"write", "read", "fdatasync", "fsync", "fallocate"};
static struct { ino_t file; struct timespec made; long calls; } counted[CALLS];

static int path_of(int fd, char *path, size_t room) {
    char link[64];
    const char *under = getenv("FAULTS_UNDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, room - 1);
    if (length < 0 || !under) return 0;
    path[length] = 0;
    return strncmp(path, under, strlen(under)) == 0;
}

static void note(int call, int error, const char *path) {
    char line[4400], log[4200];
    const char *slash = strrchr(path, '/');
    snprintf(log, sizeof log, "%s/calls", getenv("FAULTS_FOLDER"));
    int count = snprintf(line, sizeof line, "%s %d %s\n", names[call], error, slash + 1);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return;
    if (write(fd, line, count) != count) abort();
    close(fd);
}

static int armed(int call, const char *path, long offset, long octets) {
    char file[4200], text[512] = "", suffix[256] = "";
    struct stat found;
    long error, skip, times, low, high;
    snprintf(file, sizeof file, "%s/%s", getenv("FAULTS_FOLDER"), names[call]);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    int known = fstat(fd, &found) == 0 && read(fd, text, sizeof text - 1) > 0;
    close(fd);
    if (!known) return 0;
    int fields = sscanf(text, "%ld %ld %ld %ld %ld %255s", &error, &skip, &times, &low, &high,
                        suffix);
    if (fields < 5) abort();
    size_t length = strlen(path), end = strlen(suffix);
    if (end > length || strcmp(path + length - end, suffix)) return 0;
    if (offset >= high || offset + octets <= low) return 0;
    struct timespec made = found.st_mtim;
    if (counted[call].file != found.st_ino || counted[call].made.tv_sec != made.tv_sec
        || counted[call].made.tv_nsec != made.tv_nsec) {
        counted[call].file = found.st_ino;
        counted[call].made = made;
        counted[call].calls = 0;
    }
    long number = counted[call].calls++;
    return number >= skip && number < skip + times ? (int)error : 0;
}

/* The errno to fail with, 0 to go on. Notes what it says, reads that work excepted. */
static int fault(int call, int fd, long offset, long octets) {
    char path[4200];
    int before = errno;
    if (!path_of(fd, path, sizeof path)) return 0;
    pthread_mutex_lock(&lock);
    int error = armed(call, path, offset, octets);
    if (error || call != READ) note(call, error, path);
    pthread_mutex_unlock(&lock);
    errno = before;
    return error;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define FAIL_IF(error) if (error > 0) { errno = error; return -1; }

static long size_of(const struct iovec *pieces, int count) {
    long octets = 0;
    for (int i = 0; i < count; i++) octets += pieces[i].iov_len;
    return octets;
}

static ssize_t short_write(int fd, const struct iovec *pieces, off_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return real(fd, pieces[0].iov_base, (pieces[0].iov_len + 1) / 2, offset);
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    struct iovec piece = {(void *)octets, count};
    int error = fault(WRITE, fd, offset, count);
    FAIL_IF(error)
    return error ? short_write(fd, &piece, offset) : real(fd, octets, count, offset);
}
ssize_t pwrite(int fd, const void *octets, size_t count, off_t offset)
{ return pwrite64(fd, octets, count, offset); }

ssize_t pwritev64v2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    REAL(ssize_t, "pwritev64v2", int, const struct iovec *, int, off_t, int);
    int error = fault(WRITE, fd, offset, size_of(pieces, count));
    FAIL_IF(error)
    return error ? short_write(fd, pieces, offset) : real(fd, pieces, count, offset, flags);
}
ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags)
{ return pwritev64v2(fd, pieces, count, offset, flags); }
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off_t offset)
{ return pwritev64v2(fd, pieces, count, offset, 0); }
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{ return pwritev64v2(fd, pieces, count, offset, 0); }

ssize_t pread64(int fd, void *octets, size_t count, off_t offset) {
    REAL(ssize_t, "pread64", int, void *, size_t, off_t);
    int error = fault(READ, fd, offset, count);
    FAIL_IF(error)
    return real(fd, octets, count, offset);
}
ssize_t pread(int fd, void *octets, size_t count, off_t offset)
{ return pread64(fd, octets, count, offset); }

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    int error = fault(FDATASYNC, fd, 0, 1);
    FAIL_IF(error)
    return real(fd);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    int error = fault(FSYNC, fd, 0, 1);
    FAIL_IF(error)
    return real(fd);
}

int posix_fallocate64(int fd, off_t offset, off_t octets) {
    REAL(int, "posix_fallocate64", int, off_t, off_t);
    int error = fault(FALLOCATE, fd, offset, octets);
    return error ? error : real(fd, offset, octets);
}
int posix_fallocate(int fd, off_t offset, off_t octets)
{ return posix_fallocate64(fd, offset, octets); }
"""


class Call(NamedTuple):
    """A call as the library noted it; reads that worked are not noted."""

    name: str
    error: int
    """The errno it was made to fail with; 0 if it was let through."""
    file: str


class Faults:
    """Faults of the calls on files below `data`, in a program that runs with `environment`.

    Calls are `write` (pwrite and its kin), `read` (pread), `fdatasync`, `fsync` and `fallocate`.
    Compiles the library into `folder`; raises FileNotFoundError without gcc.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            raise FileNotFoundError("failing calls need gcc")
        library = folder / "faults.so"
        words = [compiler, "-O1", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-", "-ldl"]
        subprocess.run(words, input=_SOURCE, text=True, check=True, capture_output=True)
        self._folder = folder
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAULTS_FOLDER": str(folder),
            "FAULTS_UNDER": str(data),
        }

    def fail(
        self,
        call: str,
        error: int = errno.EIO,
        *,
        skip: int = 0,
        times: int = FOREVER,
        low: int = 0,
        high: int = FOREVER,
        suffix: str = "",
    ) -> None:
        """From now on `times` calls fail, after `skip` that work; only those that touch an octet
        from `low` to `high - 1` of a file whose name ends so are counted."""
        making = self._folder / f"{call}.new"
        making.write_text(f"{error} {skip} {times} {low} {high} {suffix}\n")
        making.replace(self._folder / call)

    def heal(self) -> None:
        """Nothing fails any more."""
        for call in ("write", "read", "fdatasync", "fsync", "fallocate"):
            (self._folder / call).unlink(missing_ok=True)

    def calls(self) -> list[Call]:
        """What was noted so far, in order."""
        path = self._folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Call(name, int(error), file) for name, error, file in map(_fields, lines)]

    def calls_after_failure(self) -> list[Call]:
        """What was called after the first failure."""
        calls = self.calls()
        failed = next((i for i, call in enumerate(calls) if call.error > 0), len(calls))
        return calls[failed + 1 :]


def _fields(line: str) -> tuple[str, str, str]:
    name, error, file = line.split(" ", 2)
    return name, error, file
