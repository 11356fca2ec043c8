# SPDX-License-Identifier: Apache-2.0
"""Compare-and-set on RADOS: image metadata, and the omap of plain objects.

librbd keeps an image's metadata in the omap of the object `rbd_header.ID`,
each key behind `metadata_`.  One RADOS write operation can compare such a
value and call the same class method that `rbd image-meta set` calls, so that
librbd's own watchers see the change; tried on 18.2.7.  An absent key compares
equal to the empty value, which is why no value here may be empty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Final

import rados

from csi_driver.domain.errors import InternalError
from csi_driver.images.errors import mapped

_LENGTH: Final = struct.Struct("<I")
_PREFIX: Final = "metadata_"


def read_metadata(ioctx: Any, image_id: str, key: str) -> str | None:
    """Return a metadata value; NotFoundError if the image is gone."""
    return _read(ioctx, header_object(image_id), _PREFIX + key, f"image {image_id}")


def swap_metadata(
    ioctx: Any,
    image_id: str,
    key: str,
    old: str | None,
    new: str,
) -> None:
    """Set a metadata value if it is still `old`; ConflictError if not."""
    _require_storable(new)
    doing = f"changing the record of image {image_id}"
    with mapped(doing), rados.WriteOpCtx() as operation:
        operation.omap_cmp(_PREFIX + key, old or "", rados.LIBRADOS_CMPXATTR_OP_EQ)
        # The class call alone would make a header object where none is.
        operation.execute("rbd", "metadata_set", _class_input({key: new}))
        ioctx.operate_write_op(operation, header_object(image_id))


def read_entry(ioctx: Any, name: str, key: str) -> str | None:
    """Return one omap value of an object, None without value or object."""
    try:
        with rados.ReadOpCtx() as operation:
            values, _ = ioctx.get_omap_vals_by_keys(operation, (key,))
            ioctx.operate_read_op(operation, name)
            found = dict(values)
    except rados.ObjectNotFound:
        return None
    except rados.Error as error:
        with mapped(f"reading {name}"):
            raise error from None
    return found[key].decode() if key in found else None


def read_entries(
    ioctx: Any,
    name: str,
    prefix: str,
    after: str,
    limit: int,
) -> list[tuple[str, str]]:
    """Return up to `limit` omap entries behind `after`, in key order.

    An OSD cuts an answer at `osd_max_omap_entries_per_request` (1024) without
    a word, so a short answer is followed by another question.
    """
    rows: list[tuple[str, str]] = []
    try:
        while len(rows) < limit:
            with rados.ReadOpCtx() as operation:
                values, _ = ioctx.get_omap_vals(
                    operation,
                    rows[-1][0] if rows else after,
                    prefix,
                    limit - len(rows),
                )
                ioctx.operate_read_op(operation, name)
                more = [(key, value.decode()) for key, value in values]
            if not more:
                break
            rows += more
    except rados.ObjectNotFound:
        return []
    except rados.Error as error:
        with mapped(f"reading {name}"):
            raise error from None
    return rows


def swap_entries(
    ioctx: Any,
    name: str,
    expect: Mapping[str, str | None],
    put: Mapping[str, str],
    remove: Iterable[str],
) -> None:
    """Change an omap if every expectation holds; ConflictError if not."""
    removed = tuple(remove)
    for value in put.values():
        _require_storable(value)
    with mapped(f"changing {name}"), rados.WriteOpCtx() as operation:
        operation.new(0)  # idempotent create: omap_cmp needs the object
        for key, old in expect.items():
            operation.omap_cmp(key, old or "", rados.LIBRADOS_CMPXATTR_OP_EQ)
        if put:
            ioctx.set_omap(
                operation,
                tuple(put),
                tuple(value.encode() for value in put.values()),
            )
        if removed:
            ioctx.remove_omap_keys(operation, removed)
        ioctx.operate_write_op(operation, name)


def _read(ioctx: Any, object_name: str, key: str, what: str) -> str | None:
    with mapped(f"reading {what}"), rados.ReadOpCtx() as operation:
        values, _ = ioctx.get_omap_vals_by_keys(operation, (key,))
        ioctx.operate_read_op(operation, object_name)
        found = dict(values)
    return found[key].decode() if key in found else None


def header_object(image_id: str) -> str:
    """Return the name of the object in which librbd keeps an image's header."""
    return f"rbd_header.{image_id}"


def _class_input(entries: Mapping[str, str]) -> bytes:
    """Encode a map<string, bufferlist> as Ceph's encoding does."""
    encoded = _LENGTH.pack(len(entries))
    for key, value in entries.items():
        for text in (key.encode(), value.encode()):
            encoded += _LENGTH.pack(len(text)) + text
    return encoded


def _require_storable(value: str) -> None:
    if not value or not value.isascii() or "\0" in value:
        message = "a stored value must be non-empty ASCII without NUL"
        raise InternalError(message)
