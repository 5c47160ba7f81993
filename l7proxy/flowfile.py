"""A log file that is appended to and moved aside at a size. Blocking: it belongs to a thread of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class FlowFile:
    """Appends whole lines to `path` (``-`` is stdout). At `max_bytes` the file becomes ``PATH.1``, the one before it
    ``PATH.2``, up to `keep`. If somebody else moves or removes the file, a new one is made. Only its owner and group
    may read it."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._fd = -1
        self._size = 0
        self._regular = False
        self._torn = False

    def append(self, data: bytes) -> None:
        """Write all of `data` or, where the file can be cut back, nothing. Raises OSError."""
        self._ensure_open()
        if self._regular and self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        if self._torn:
            data = b"\n" + data  # the rest of a line was lost: begin on a new one
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:] if done else data)
        except OSError:
            self._undo(done)
            raise
        self._size += len(data)
        self._torn = False

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0 and self._path != "-":
            os.close(self._fd)
        self._fd = -1

    def _undo(self, done: int) -> None:
        if not done:
            return
        self._torn = True
        if self._regular:
            os.ftruncate(self._fd, self._size)
            self._torn = False

    def _ensure_open(self) -> None:
        if self._path == "-":
            self._fd = 1
            return
        if self._fd >= 0 and self._moved():
            self.close()
        if self._fd < 0:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            found = os.fstat(self._fd)
            self._size, self._regular = found.st_size, stat.S_ISREG(found.st_mode)
            self._torn = self._regular and self._size > 0 and not _ends_whole(self._path)

    def _moved(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        # Somebody may also have cut it (logrotate's copytruncate): then the size to count from is another.
        self._size = mine.st_size if self._regular else self._size
        return (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino)

    def _rotate(self) -> None:
        if self._keep == 0:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        for number in range(self._keep - 1, 0, -1):
            if os.path.exists(f"{self._path}.{number}"):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")
        self.close()
        self._ensure_open()


def _ends_whole(path: str) -> bool:
    """False if the file's last line was cut off, as by a crash."""
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
