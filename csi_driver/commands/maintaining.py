# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi volume flatten`, `shrink` and `collect`: work by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Mapping

from csi_driver.commands import attended
from csi_driver.commands import composition
from csi_driver.commands import noticing
from csi_driver.commands import output
from csi_driver.commands import service
from csi_driver.commands.choosing import Named
from csi_driver.commands.choosing import SecretSource
from csi_driver.commands.output import Output
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import DriverError
from csi_driver.domain.flatten_news import FlattenNews
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.quantities import show_size
from csi_driver.domain.record import Record
from csi_driver.images.port import Pool
from csi_driver.kube.secret_texts import parse_secret
from csi_driver.provisioning.collection_preview import preview
from csi_driver.provisioning.collection_preview import preview_begun
from csi_driver.provisioning.flattening import Flattening
from csi_driver.provisioning.flattening import Progress
from csi_driver.provisioning.overview import Place
from csi_driver.provisioning.overview import entries
from csi_driver.provisioning.overview import places
from csi_driver.provisioning.shrinking import Shrink
from csi_driver.provisioning.shrinking import shrink
from csi_driver.provisioning.sweeping import begun
from csi_driver.settings import ClusterSettings


def flatten(
    settings: ClusterSettings, form: Output, named: Named, secret: SecretSource
) -> None:
    """Flatten a volume that is not staged."""
    service.start_logging(settings)
    service.protect_keys()
    secrets = secret.read(settings)
    with output.progress(f"flattening {named.text}") as progress:
        volume_id, record = _flattened(settings, named, secrets, progress)
    if form is Output.JSON:
        output.show_json(_changed(volume_id, "ancestors", record.ancestors))
    else:
        output.show(f"{record.name}: flattened; it has no parent any more")


def flatten_attended(
    settings: ClusterSettings, named: Named, *, with_secret: bool
) -> None:
    """Flatten for a person elsewhere, as `attended` says."""
    service.start_logging(settings)
    service.protect_keys()
    secrets = parse_secret(attended.first_line(), "stdin") if with_secret else {}
    attended.heed_stdin()
    with attended.progress() as progress:
        volume_id, record = _flattened(settings, named, secrets, progress)
    attended.show_line(_changed(volume_id, "ancestors", record.ancestors))


def _flattened(
    settings: ClusterSettings,
    named: Named,
    secrets: Mapping[str, str],
    show: Progress,
) -> tuple[VolumeId, Record]:
    storage = composition.ceph(settings)
    volume_id = named.find(storage)
    connection = storage.connector.connect(volume_id.location.cluster)
    with (
        contextlib.closing(connection) as own,
        noticing.told(settings, storage) as notices,
    ):
        news = FlattenNews(notices, volume_id)

        def progress(done: int, total: int) -> None:
            show(done, total)
            news.progressed(done, total)

        work = Flattening(own, storage.connections, volume_id, progress, output.tell)
        with _end_told(news):
            return volume_id, work.run(secrets)


@contextlib.contextmanager
def _end_told(news: FlattenNews) -> Iterator[None]:
    """Tell how a flatten ended; one that gave way to a stage has told nothing new."""
    try:
        yield
    except CancelledError:
        raise
    except DriverError as error:
        if news.started:
            news.failed(str(error))
        raise
    news.ended()


def shrink_volume(
    settings: ClusterSettings,
    form: Output,
    named: Named,
    secret: SecretSource,
    asked: Shrink,
) -> None:
    """Shrink a volume that is not staged."""
    service.start_logging(settings)
    service.protect_keys()
    secrets = secret.read(settings)
    storage = composition.ceph(settings)
    volume_id = named.find(storage)
    location = volume_id.location
    with contextlib.closing(storage.connector.connect(location.cluster)) as own:
        record = shrink(
            own.pool_at(location), volume_id.image_id, asked, secrets, output.tell
        )
    if form is Output.JSON:
        output.show_json(_changed(volume_id, "bytes", record.actual.count))
    else:
        output.show(
            f"{record.name}: {show_size(record.actual.count)} now; its"
            " PersistentVolume and claim go on showing the old size"
        )


def collect(settings: ClusterSettings, form: Output, *, dry_run: bool) -> None:
    """Collect tombstones once in every place, or say what would become of them.

    What was begun and not finished is named, too, and left to the controller: one
    look does not show whether somebody goes on with it.
    """
    service.start_logging(settings)
    rows = list(_preview(settings) if dry_run else _collect(settings))
    if form is Output.JSON:
        output.show_json(
            [
                {
                    "cluster": place.cluster,
                    "pool": place.pool,
                    "namespace": place.namespace,
                    "name": name,
                    "image": image,
                    "outcome": outcome,
                }
                for place, name, image, outcome in rows
            ]
        )
        return
    made = output.table("NAME", "PLACE", "IMAGE", "OUTCOME")
    for place, name, image, outcome in rows:
        output.add_row(made, name, str(place), image, outcome)
    output.show(made)


type _Row = tuple[Place, str, str, str]


def _preview(settings: ClusterSettings) -> Iterator[_Row]:
    storage = composition.ceph(settings)
    for place in places(storage.clusters):
        with storage.connections.pool(
            place.cluster, place.pool, place.namespace
        ) as pool:
            for each in entries(pool, deleted=True):
                yield place, each.name, each.image_name, preview(pool, each)
            yield from _begun(place, pool)


def _collect(settings: ClusterSettings) -> Iterator[_Row]:
    storage = composition.ceph(settings)
    collector = composition.collector(storage)
    for place in places(storage.clusters):
        where = place.cluster, place.pool, place.namespace
        with storage.connections.pool(*where) as pool:
            waiting = list(entries(pool, deleted=True))
        outcomes = {
            each.entry.image_name: each.outcome.value for each in collector.look(*where)
        }
        for each in waiting:
            outcome = outcomes.get(each.image_name, "kept: see the warning above")
            yield place, each.name, each.image_name, outcome
        with storage.connections.pool(*where) as pool:
            yield from _begun(place, pool)


def _begun(place: Place, pool: Pool) -> Iterator[_Row]:
    for each in begun(pool):
        entry = each.entry
        yield place, entry.name, entry.image_name, preview_begun(pool, each)


def _changed(volume_id: VolumeId, name: str, value: int) -> dict[str, object]:
    return {"id": str(volume_id), name: value}
