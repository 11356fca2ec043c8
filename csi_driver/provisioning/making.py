# SPDX-License-Identifier: Apache-2.0
"""From a CreateVolume with a source to the clone: begun, gone on with, or found."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.port import Pool
from csi_driver.images.records import find_record
from csi_driver.keys.inheritance import Inheritance
from csi_driver.keys.material import parse_key_source
from csi_driver.provisioning import children
from csi_driver.provisioning.blueprints import Blueprint
from csi_driver.provisioning.cloning import ClonedVolume
from csi_driver.provisioning.cloning import ResumedClone
from csi_driver.provisioning.creation import Creation
from csi_driver.provisioning.creation import abandon
from csi_driver.provisioning.giving_up import give_up
from csi_driver.provisioning.keys_in_advance import KeysInAdvance
from csi_driver.provisioning.keys_in_advance import KeysOfRecord
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.plan import Checked
from csi_driver.provisioning.plan import Plan
from csi_driver.provisioning.plan import make_clone_plan
from csi_driver.provisioning.plan import plan_as_made
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.source_keys import open_source
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.sources import find_source


@dataclasses.dataclass(frozen=True, slots=True)
class Making:
    """One CreateVolume with a source, on a Rados instance of its own."""

    places: Places
    pool: Pool
    request: CreateRequest
    asked: Checked
    secrets: Mapping[str, str] = dataclasses.field(repr=False)

    def clone(self, elsewhere: SourceSecrets, patience: LockPatience) -> Record:
        """Return the clone's record in `ready`; errors as `Creation.run` and below.

        What an equal call made needs no source any more.
        """
        present = self._present(patience)
        if present is None:
            return self._new(elsewhere, patience)
        plan = plan_as_made(self.request, self.asked, present)
        try:
            plan.require_same(present)
        except AlreadyExistsError:
            if present.state is VolumeState.READY:
                raise
            # Nobody was told of it, so what is asked for now is made instead.
            return self._new(elsewhere, patience)
        if present.state is VolumeState.READY:
            return present
        source = parse_key_source(self.secrets) if present.mode.encrypted else None
        try:
            keys = KeysOfRecord(present, source) if source else None
        except SecretError as error:
            return self._under_another(present, error, elsewhere, patience)
        with keys or contextlib.nullcontext():
            return self._run(ResumedClone(self.pool, plan, keys), patience)

    def _under_another(
        self,
        begun: Record,
        why: SecretError,
        elsewhere: SourceSecrets,
        patience: LockPatience,
    ) -> Record:
        """Begin a clone anew under this Secret, since nobody was told of the other.

        Where that cannot be, the Secret that it was begun with may still finish it;
        SecretError says so.
        """
        try:
            return self._new(elsewhere, patience, instead_of=begun)
        except (NotFoundError, SecretError) as error:
            message = (
                f"volume {begun.name!r} was begun under another Secret ({why}), and"
                f" cannot be begun anew under this one: {error}"
            )
            raise SecretError(message) from error

    def _give_up(self, begun: Record, patience: LockPatience) -> None:
        """Give up what another call only began; PendingError if that is alive."""
        entry = Directory(self.pool).find(begun.name)
        if entry is None or entry.image_id != begun.image_id:
            return

        def is_dead(owner: str) -> bool:
            return patience.presumed_dead(begun.image_id, owner)

        with contextlib.suppress(ConflictError):  # whoever won, it is looked again
            give_up(self.pool, entry, begun, is_dead)

    def _new(
        self,
        elsewhere: SourceSecrets,
        patience: LockPatience,
        instead_of: Record | None = None,
    ) -> Record:
        """Make it from its source; `instead_of` is given up once the keys are open."""
        asked = self.request.source
        if asked is None:
            message = "a clone without a source"
            raise RecordError(message)
        source = find_source(self.pool, asked)
        # What an interrupted call leaves there is the collector's to find.
        self.places.require_collected(source.pool)
        plan = make_clone_plan(self.request, self.asked, source)
        with contextlib.ExitStack() as wiping:
            keys = None
            if plan.mode.encrypted:
                inherited = open_source(source, self.secrets, elsewhere)
                wiping.callback(inherited.close)
                keys = wiping.enter_context(new_keys(plan, self.secrets, inherited))
            if instead_of is not None:
                self._give_up(instead_of, patience)
            children.settle(source.pool, source.record.image_id, patience)
            return self._run(ClonedVolume(self.pool, plan, source, keys), patience)

    def _run(self, blueprint: Blueprint, patience: LockPatience) -> Record:
        return Creation(self.pool, blueprint, patience).run()

    def _present(self, patience: LockPatience) -> Record | None:
        """Return the record of what has the name already, unless it is deleted.

        What an interrupted call only began is given up first, whether the
        source is still there or not; PendingError while that may be alive.
        """
        entry = Directory(self.pool).find(self.asked.name)
        if entry is None:
            return None
        if not entry.image_id:
            abandon(self.pool, entry, patience)
            return None
        try:
            record = find_record(self.pool, entry.image_id)
        except NotFoundError:
            return None
        begun = {VolumeState.CREATING, VolumeState.READY}
        return record if record and record.state in begun else None


def new_keys(
    plan: Plan, secrets: Mapping[str, str], inherited: Inheritance | None = None
) -> contextlib.AbstractContextManager[KeysInAdvance | None]:
    """Return fresh keys for a volume, None for a plaintext one."""
    if not plan.mode.encrypted:
        return contextlib.nullcontext()
    return KeysInAdvance(parse_key_source(secrets), plan.layout, inherited)
