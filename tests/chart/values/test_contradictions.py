# SPDX-License-Identifier: Apache-2.0
"""Values of which each makes sense by itself, refused for what they say together."""

from __future__ import annotations

import pytest
from charttools.rendering import HelmError

from tests.chart import rendered
from tests.chart.given import a_class
from tests.chart.given import clusters

CONTRADICTIONS = {
    "no cluster": ("clusters=[]", "clusters is empty: name at least one"),
    "a cluster twice": (
        clusters({}, {}),
        'clusters.1.clusterID: "lab" is there twice',
    ),
    "monitors from nowhere": (
        clusters({"monitors": None}),
        'clusters.0.monitors: cluster "lab" has none',
    ),
    "a class of another cluster": (
        a_class({"clusterID": "x"}),
        'storageClasses.0.parameters.clusterID: "x" is none of clusters, which are lab',
    ),
    "a class of another pool": (
        a_class({"radosNamespace": "tenant"}),
        'storageClasses.0.parameters.pool: "rbd/tenant" is none of the pools and RADOS',
    ),
    "data in another pool": (
        a_class({"dataPool": "ec"}),
        'storageClasses.0.parameters.dataPool: "ec" is none of the pools',
    ),
    "snapshots by nobody": (
        'volumeSnapshotClasses=[{"name": "s"}]',
        "volumeSnapshotClasses: nobody would serve them",
    ),
    "a version that does not last": ('image.tag="latest"', 'image.tag: "latest"'),
    "a port twice on a node": (
        "node.httpPort=9682",
        "datapath.httpPort: port 9682 is taken by node.httpPort",
    ),
    "a port twice in a controller": (
        "controller.httpPort=9684",
        "controller.httpPort: port 9684 is taken by sidecars.metrics in the same pod",
    ),
    "the liveness probe's port twice in a controller": (
        "sidecars.livenessProbe.controllerPort=9680",
        "sidecars.livenessProbe.controllerPort: port 9680 is taken by controller",
    ),
    "state that goes with a reboot": (
        'paths.state="/run/rbdcrypt-csi"',
        'paths.run: "/run/rbdcrypt-csi" is paths.state already',
    ),
    "everything counted twice": (
        "metrics.podMonitor.enabled=true",
        "metrics.serviceMonitor.enabled: metrics.podMonitor is enabled, too",
    ),
    "ports that end before they begin": (
        "networkPolicy.ceph.lastPort=6799",
        "networkPolicy.ceph.lastPort is below firstPort",
    ),
}


@pytest.mark.parametrize(
    ("given", "said"), CONTRADICTIONS.values(), ids=list(CONTRADICTIONS)
)
def test_values_that_contradict_each_other_are_refused(given: str, said: str) -> None:
    further = {
        "volumeSnapshotClasses": ("sidecars.snapshotter.enabled=false",),
        "metrics": ("metrics.serviceMonitor.enabled=true",),
        "controller": ("sidecars.metrics=true",),
        "sidecars": ("sidecars.livenessProbe.enabled=true",),
    }.get(given.partition("=")[0].partition(".")[0], ())
    with pytest.raises(HelmError) as caught:
        rendered.rendered_with(given, *further)
    assert said in str(caught.value)
