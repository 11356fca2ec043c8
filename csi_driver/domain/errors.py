# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, named once for the whole driver.

Every layer raises these and nothing else across its border: `images` maps
librbd's errno values to them, `rpc` maps them to gRPC status codes (subclasses
included).  A message says which volume, what was expected, what was found and
what to do about it; it never holds a passphrase or a key.
"""

from __future__ import annotations


class DriverError(Exception):
    """Base of every expected failure.  The message is meant for a person."""


class InvalidRequestError(DriverError):
    """A field of the request is missing or malformed."""


class NotFoundError(DriverError):
    """The volume, image, Secret or path does not exist."""


class AlreadyExistsError(DriverError):
    """The name is taken by something that differs from what was asked for."""


class PendingError(DriverError):
    """Somebody else is at work on the same volume; the caller may try again."""


class PreconditionError(DriverError):
    """The state of the system forbids the operation until somebody acts."""


class InUseError(PreconditionError):
    """The volume is open somewhere: a lock owner or a watcher exists."""


class AlreadyLoadedError(PreconditionError):
    """A load or a format was asked of an image whose encryption is loaded.

    librbd 18.2.7 refuses the second load but not the format of a flat image,
    which replaces the volume key and with it loses all data.
    """


class HeaderExistsError(PreconditionError):
    """A LUKS header was to be written where one stands already."""


class HeaderError(PreconditionError):
    """The LUKS header is missing, damaged, or of an unexpected kind."""


class RecordError(PreconditionError):
    """The volume's record cannot be read: unknown version or altered."""


class ExportLostError(PreconditionError):
    """The export behind a device has died; the volume must be staged anew."""


class SizeError(DriverError):
    """A size lies outside of what can be provided."""


class ExhaustedError(DriverError):
    """No room: a full pool, or a limit of this machine is reached."""


class SecretError(DriverError):
    """A Secret is absent from the request, malformed, or the wrong one."""


class CephKeyError(SecretError):
    """Ceph does not accept the key of a user, which may be the driver's own."""


class ForbiddenError(DriverError):
    """The caller is known but may not do this (Ceph caps, Kubernetes RBAC)."""


class CredentialsError(ForbiddenError):
    """The API server does not know the caller: a token that is over, or unknown."""


class UnavailableError(DriverError):
    """Ceph, the datapath or the API server cannot be reached now."""


class SkewError(PreconditionError):
    """Two processes of this node are of versions that do not understand each other."""


class UnsupportedError(DriverError):
    """The operation is not offered here, and the message says why."""


class FencedError(UnavailableError):
    """This Ceph client was put on the blocklist; its handles are dead."""


class ConflictError(PendingError):
    """A compare-and-set lost: the value is no longer the one expected."""


class CancelledError(PendingError):
    """Long work was asked to stop and did; repeating it goes on from there."""


class InternalError(DriverError):
    """A bug or an outcome that no rule of the driver foresees."""
