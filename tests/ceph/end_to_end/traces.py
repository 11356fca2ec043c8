# SPDX-License-Identifier: Apache-2.0
"""Look for secrets wherever they could have been left."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import resource
import stat
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from typing import Final

import rados

_CHUNK: Final = 4 << 20
_LONGEST: Final = 1024
_PAGE: Final = resource.getpagesize()


def forms(secret: bytes) -> set[bytes]:
    """Return a secret in every spelling in which it could be written down."""
    hexadecimal = secret.hex().encode()
    encoded = base64.b64encode(secret)
    found = {
        secret,
        hexadecimal,
        hexadecimal.upper(),
        encoded,
        encoded.rstrip(b"="),
        base64.urlsafe_b64encode(secret),
        base64.b64encode(encoded),
        base64.b32encode(secret),
        repr(secret)[2:-1].encode(),
        secret[::-1],
    }
    with contextlib.suppress(UnicodeDecodeError):
        text = secret.decode()
        found |= {text.encode("utf-16-le"), text.encode("utf-16-be")}
    return found


@dataclasses.dataclass(frozen=True)
class Canaries:
    """Secrets by a name that may be shown; searching finds any of their forms."""

    secrets: Mapping[str, bytes]
    spelt: Mapping[str, set[bytes]] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        spelt = {name: forms(secret) for name, secret in self.secrets.items()}
        object.__setattr__(self, "spelt", spelt)

    def within(self, content: bytes) -> set[str]:
        """Return the names of the secrets that occur in `content`."""
        return {
            name
            for name, forms_of_it in self.spelt.items()
            if any(form in content for form in forms_of_it)
        }

    def found_in(self, places: Iterable[tuple[str, bytes]]) -> dict[str, set[str]]:
        """Return where which secret was found; empty if nowhere.

        At least one place has to have content, or the search proves nothing.
        """
        found: dict[str, set[str]] = {}
        searched = 0
        for place, content in places:
            searched += len(content)
            if names := self.within(content):
                found.setdefault(place, set()).update(names)
        assert searched, "there was nothing to search"
        return found


def files_below(*directories: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every plain file below the directories, with its content."""
    for directory in directories:
        device = directory.lstat().st_dev
        for path in directory.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                # What is mounted there is something else.
                if stat.S_ISREG(status.st_mode) and status.st_dev == device:
                    yield str(path), path.read_bytes()


def of_processes(pids: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Yield the command line and environment of processes."""
    for pid in pids:
        for name in ("cmdline", "environ"):
            # It may have ended meanwhile.
            with contextlib.suppress(OSError):
                content = Path(f"/proc/{pid}/{name}").read_bytes()
                yield f"{name} of {pid}", content


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


@contextlib.contextmanager
def pool_at(conf: str, pool: str, namespace: str = "") -> Iterator[rados.Ioctx]:
    """Give a pool as Ceph's administrator sees it."""
    cluster = rados.Rados(conffile=conf)
    cluster.connect()
    try:
        with cluster.open_ioctx(pool) as context:
            context.set_namespace(namespace)
            yield context
    finally:
        cluster.shutdown()


def of_pool(context: rados.Ioctx) -> Iterator[tuple[str, bytes]]:
    """Yield every byte that RADOS keeps for a pool: data, xattrs and omap."""
    for name in [item.key for item in context.list_objects()]:
        # It may have been removed since it was listed.
        with contextlib.suppress(rados.ObjectNotFound):
            for part in _of_object(context, name):
                yield name, part


def memory(pid: int) -> Iterator[bytes]:
    """Yield all that a process has in writable memory, in whole runs of pages.

    Needs CAP_SYS_PTRACE for a process that is not dumpable.
    """
    proc = Path(f"/proc/{pid}")
    line = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw", re.MULTILINE)
    ranges = line.findall((proc / "maps").read_text())
    with (
        (proc / "mem").open("rb", buffering=0) as file,
        (proc / "pagemap").open("rb", buffering=0) as pagemap,
    ):
        for start, end in ranges:
            for begin, length in _present(pagemap, int(start, 16), int(end, 16)):
                file.seek(begin)
                with contextlib.suppress(OSError):  # given back meanwhile
                    yield file.read(length)


def _present(pagemap: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (address, bytes) of the runs of pages that have been touched.

    See Documentation/admin-guide/mm/pagemap.rst: 8 bytes for each page, bit 63
    set if it is in memory.
    """
    pagemap.seek(start // _PAGE * 8)
    entries = memoryview(pagemap.read((end - start) // _PAGE * 8)).cast("Q")
    begin = None
    for number, entry in enumerate((*entries, 0)):
        here = start + number * _PAGE
        if entry >> 63 and begin is None:
            begin = here
        elif not entry >> 63 and begin is not None:
            yield begin, here - begin
            begin = None


def _of_object(context: rados.Ioctx, name: str) -> Iterator[bytes]:
    size, _ = context.stat(name)
    tail = b""
    for offset in range(0, size, _CHUNK):
        piece = context.read(name, _CHUNK, offset)
        yield tail + piece
        tail = piece[-_LONGEST:]
    for key, value in context.get_xattrs(name):
        yield key.encode() + b"\n" + value
    with rados.ReadOpCtx() as operation:
        values, _ = context.get_omap_vals(operation, "", "", 100_000)
        context.operate_read_op(operation, name)
        for key, value in values:
            yield key.encode() + b"\n" + (value or b"")
