"""Downloading one published file into a folder, so that nothing but the published bytes ever stands under its name.

The bytes go to NAME.part, which a later call goes on from where the last one stopped, and are renamed when their size
and checksums are right. Processes that want the same file take turns by a lock on .NAME.lock.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqzc.diagnostics import Location, ZooError
from sqzc.zoo.manifest import FileEntry, Tally, check_file

Progress = Callable[[int, int], None]
"""Told how many bytes are there and how many there will be."""

TIMEOUT_SECONDS = 10.0
"""How long a server may stay silent."""

ATTEMPTS = 3
"""How often one address is asked while each time brings new bytes or a fresh start."""

_CHUNK_BYTES = 2**16


class _Refused(Exception):
    """This address does not give the file now; the text says why. `again` means that asking once more may help."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def fetch(entry: FileEntry, folder: Path, progress: Progress | None = None, timeout: float = TIMEOUT_SECONDS) -> Path:
    """The file `entry` in `folder`, downloaded unless it is there already; a file there that is not it is replaced.

    Raises ZooError, with what each address answered, when none gives the published bytes, and when `folder` cannot be
    written to.
    """
    path = folder / entry.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder / f".{entry.name}.lock"):
            if path.exists():
                if check_file(path, entry).matches:
                    return path
                path.unlink()
            part = folder / f"{entry.name}.part"
            refusals = []
            for url in entry.urls:
                refusal = _fetch_from(url, entry, part, progress or _silent, timeout)
                if refusal is None:
                    os.replace(part, path)
                    return path
                refusals.append(f"{url}: {refusal}")
    except OSError as error:
        raise ZooError(
            f"the model cache cannot be used: {error.strerror or error}", location=Location(str(folder))
        ) from error
    raise ZooError(
        f"'{entry.name}' could not be downloaded:\n  " + "\n  ".join(refusals),
        expected=f"{entry.bytes} bytes, sha256 {entry.sha256}, sha384 {entry.sha384}",
    )


def _silent(done: int, total: int) -> None:
    pass


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Holds the lock file at `path`; waits while another process or thread does."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_from(url: str, entry: FileEntry, part: Path, progress: Progress, timeout: float) -> str | None:
    """Fills `part` from one address; returns why that failed, or None when the file is complete and right."""
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            _attempt(url, entry, part, progress, timeout)
            return None
        except _Refused as refused:
            reason = str(refused)
            if not refused.again:
                break
    return reason


def _attempt(url: str, entry: FileEntry, part: Path, progress: Progress, timeout: float) -> None:
    """One request, going on from what `part` holds. What it holds afterwards is worth going on from, or gone."""
    with part.open("a+b") as file:
        tally = _tally_of(file, entry)
        start = tally.bytes
        progress(start, entry.bytes)
        if start < entry.bytes:
            with _ask(url, start, timeout) as response:
                if start and not _continues(response, start, entry):
                    tally, start = _start_over(file), 0
                _copy(response, file, tally, entry, progress)
            file.flush()
            os.fsync(file.fileno())
        check = tally.compare(entry)
        if check.matches:
            return
        if check.bytes < entry.bytes:
            raise _Refused(f"ended after {check.bytes} of {entry.bytes} bytes", again=check.bytes > start)
        _start_over(file)
        # The wrong bytes may be those of an earlier call; if they all came now, they would come again.
        raise _Refused(f"gave another file than the published one, sha256 {check.sha256}", again=start > 0)


def _tally_of(file: Any, entry: FileEntry) -> Tally:
    """Size and checksums of what an earlier call left; leaves the file at its end."""
    tally = Tally()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        tally.add(chunk)
        if tally.bytes > entry.bytes:
            return _start_over(file)
    return tally


def _start_over(file: Any) -> Tally:
    file.seek(0)
    file.truncate()
    return Tally()


def _ask(url: str, start: int, timeout: float) -> Any:
    """The answer to a request for the bytes from `start` on; raises _Refused when there is none."""
    request = urllib.request.Request(url, headers={"User-Agent": "sqzc", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _ask(url, 0, timeout)
        raise _Refused(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _Refused(str(error.reason)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a redirection to nonsense
        raise _Refused(str(error) or type(error).__name__) from error


def _continues(response: Any, start: int, entry: FileEntry) -> bool:
    """Whether the answer is what was asked for, the rest from `start` on, rather than the whole file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return False
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != start or match[2] not in ("*", str(entry.bytes)):
        raise _Refused(f"answered with another range, {response.headers.get('Content-Range')}")
    return True


def _copy(response: Any, file: Any, tally: Tally, entry: FileEntry, progress: Progress) -> None:
    """Takes the answer's bytes, and never more than the published size."""
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and tally.bytes + int(announced) != entry.bytes:
        raise _Refused(f"has {tally.bytes + int(announced)} bytes, not the published {entry.bytes}")
    while True:
        try:
            chunk = response.read(min(_CHUNK_BYTES, entry.bytes - tally.bytes + 1))
        except (OSError, http.client.HTTPException):
            return  # the connection broke; the caller sees that bytes are missing
        if not chunk:
            return
        if tally.bytes + len(chunk) > entry.bytes:
            _start_over(file)
            raise _Refused(f"has more than the published {entry.bytes} bytes")
        file.write(chunk)
        tally.add(chunk)
        progress(tally.bytes, entry.bytes)
