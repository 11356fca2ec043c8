# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume check`: what is wrong with a volume, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from rich.padding import Padding

from csi_driver.commands import composition
from csi_driver.commands import output
from csi_driver.commands import service
from csi_driver.commands.choosing import Named
from csi_driver.commands.choosing import SecretSource
from csi_driver.commands.description import describe_findings
from csi_driver.commands.output import Output
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.ids import VolumeId
from csi_driver.provisioning.finding import Finding
from csi_driver.provisioning.findings import damaged_record
from csi_driver.provisioning.findings import findings
from csi_driver.provisioning.findings import image_gone
from csi_driver.provisioning.findings import requires_attention
from csi_driver.provisioning.findings import volume_gone
from csi_driver.provisioning.inspection import inspect
from csi_driver.provisioning.loading import try_loading
from csi_driver.provisioning.overview import in_order
from csi_driver.provisioning.overview import survey
from csi_driver.settings import ClusterSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """One volume and what was found."""

    volume_id: VolumeId
    name: str
    found: tuple[Finding, ...]


def check(
    settings: ClusterSettings,
    form: Output,
    *,
    named: Sequence[Named],
    secret: SecretSource,
) -> bool:
    """Print what is wrong with some volumes, or with all; True if nothing is.

    With the Secret of one volume its head and snapshots are loaded, too.
    """
    service.start_logging(settings)
    secrets = secret.read(settings)
    if secrets:
        service.protect_keys()
    if secrets and len(named) != 1:
        message = "a Secret is for one volume: every volume may have its own"
        raise InvalidRequestError(message)
    storage = composition.ceph(settings)
    if len(named) == 1:
        checked = [_one(storage, named[0].find(storage), secrets)]
    else:
        checked = list(_named(storage, named) if named else _all(storage))
    if form is Output.JSON:
        output.show_json([_plain(each) for each in checked])
    else:
        output.show(*_lines(checked))
    return not any(requires_attention(each.found) for each in checked)


def _one(
    storage: composition.Ceph, volume_id: VolumeId, secrets: Mapping[str, str]
) -> Checked:
    with storage.connections.pool_at(volume_id.location) as pool:
        try:
            seen = inspect(pool, volume_id.image_id)
        except RecordError as error:
            return Checked(volume_id, "", (damaged_record(str(error)),))
        found = findings(seen)
        if secrets:
            found = (*try_loading(pool, seen, secrets), *found)
    return Checked(volume_id, seen.record.name, found)


def _named(storage: composition.Ceph, named: Sequence[Named]) -> Iterator[Checked]:
    """Check several volumes: one that is gone must not hide what others have."""
    for volume_id in [each.find(storage) for each in named]:
        try:
            yield _one(storage, volume_id, {})
        except NotFoundError as error:
            yield Checked(volume_id, "", (volume_gone(str(error)),))


def _all(storage: composition.Ceph) -> Iterator[Checked]:
    filed = in_order(survey(storage.connections, storage.clusters))
    with output.progress("checking") as progress:
        for number, each in enumerate(filed):
            progress(number, len(filed))
            if not each.entry.image_id:
                continue  # its image is being made
            volume_id = VolumeId(each.location, each.entry.image_id)
            try:
                checked = _one(storage, volume_id, {})
            except NotFoundError as error:
                checked = Checked(volume_id, "", (image_gone(str(error)),))
            yield dataclasses.replace(checked, name=each.entry.name)


def _plain(checked: Checked) -> dict[str, object]:
    return {
        "id": str(checked.volume_id),
        "name": checked.name,
        "ok": not requires_attention(checked.found),
        "findings": describe_findings(checked.found),
    }


def _lines(checked: Iterable[Checked]) -> Iterator[Padding | str]:
    for each in checked:
        state = "in order"
        if requires_attention(each.found):
            count = sum(finding.wrong for finding in each.found)
            state = f"{count} {'thing is' if count == 1 else 'things are'} wrong"
        yield f"{each.name or each.volume_id}: {state}"
        for finding in each.found:
            kind = "WRONG" if finding.wrong else "note"
            yield output.indented(f"{kind} {finding.code}", 2)
            yield output.indented(f"{finding.meaning}.", 4)
            yield output.indented(f"What can be done: {finding.remedy}.", 4)
