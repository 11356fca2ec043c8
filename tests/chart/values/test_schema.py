# SPDX-License-Identifier: Apache-2.0
"""Values that make no sense are refused by the schema, with their path."""

from __future__ import annotations

import re

import pytest
from charttools import rendering
from charttools.rendering import HelmError

from tests.chart import rendered
from tests.chart.given import a_class
from tests.chart.given import clusters

REFUSED = {
    "a value that does not exist": ("nodes={}", "at '': additional properties 'nodes'"),
    "one that is misspelt inside": (
        "node.hostnetwork=true",
        "at '/node': additional properties 'hostnetwork'",
    ),
    "the processes of the node": (
        "datapath.hostPID=true",
        "at '/datapath': additional properties 'hostPID'",
    ),
    "a level of no log": ('log.level="loud"', "at '/log/level': value must be one of"),
    "a driver's name with spaces": ('driverName="my driver"', "at '/driverName'"),
    "a digest that is none": ('image.digest="sha256:12"', "at '/image/digest'"),
    "a negative number of controllers": (
        "controller.replicas=-1",
        "at '/controller/replicas': minimum",
    ),
    "no controller": ("controller.replicas=0", "at '/controller/replicas': minimum"),
    "root": ("controller.runAsUser=0", "at '/controller/runAsUser': minimum"),
    "a port that is none": ("node.httpPort=96810", "at '/node/httpPort': maximum"),
    "a path that is relative": ('paths.state="state"', "at '/paths/state'"),
    "the whole machine as a place for state": ('paths.state="/"', "at '/paths/state'"),
    "an end that ruins what a worker flattens": (
        "datapath.terminationGracePeriodSeconds=30",
        "at '/datapath/terminationGracePeriodSeconds': minimum",
    ),
    "requests left out": (
        "datapath.resources.requests=null",
        "at '/datapath/resources': missing property 'requests'",
    ),
    "a quantity that is none": (
        'node.resources.requests={"cpu": "many"}',
        "at '/node/resources/requests/cpu'",
    ),
    "a device method of no kernel": ('deviceMethod="rbd"', "at '/deviceMethod'"),
    "a cluster without a Secret": (
        clusters({"secretName": None}),
        "at '/clusters/0': missing property 'secretName'",
    ),
    "a cluster without pools": (
        clusters({"pools": []}),
        "at '/clusters/0/pools': minItems",
    ),
    "a clusterID that ids cannot carry": (
        clusters({"clusterID": "x" * 37}),
        "at '/clusters/0/clusterID'",
    ),
    "two monitors in one": (
        clusters({"monitors": ["a:3300,b:3300"]}),
        "at '/clusters/0/monitors/0'",
    ),
    "a key of the Ceph user": (
        clusters({"userKey": "AQ=="}),
        "at '/clusters/0': additional properties 'userKey'",
    ),
    "a namespace twice": (
        'secrets.namespaces=["a", "a"]',
        "at '/secrets/namespaces': items at 0 and 1 are equal",
    ),
    "a parameter that is misspelt": (
        a_class({"encryptd": "false"}),
        "at '/storageClasses/0/parameters': additional properties 'encryptd'",
    ),
    "a parameter that is no string": (
        a_class({"objectSize": 4194304}),
        "at '/storageClasses/0/parameters/objectSize': got number",
    ),
    "an encryption of its own": (
        a_class({"encrypted": "maybe"}),
        "at '/storageClasses/0/parameters/encrypted'",
    ),
    "an image feature that is refused": (
        a_class({"imageFeatures": "layering,deep-flatten"}),
        "at '/storageClasses/0/parameters/imageFeatures'",
    ),
    "a file system that is not offered": (
        a_class({"csi.storage.k8s.io/fstype": "btrfs"}),
        "at '/storageClasses/0/parameters/csi.storage.k8s.io~1fstype'",
    ),
    "half a Secret for the driver": (
        a_class({"passphraseSecretName": "s"}),
        "at '/storageClasses/0/parameters': properties 'passphraseSecretNamespace'",
    ),
    "a reference to a Secret by hand": (
        a_class({"csi.storage.k8s.io/provisioner-secret-name": "s"}),
        "at '/storageClasses/0/parameters': additional properties",
    ),
    "half a Secret": (
        a_class(secret={"name": "s"}),
        "at '/storageClasses/0/secret': missing property 'namespace'",
    ),
    "a template that nobody fills in": (
        a_class(secret={"name": "${pod.name}", "namespace": "n"}),
        "at '/storageClasses/0/secret/name'",
    ),
    "a claim's name as a namespace": (
        a_class(secret={"name": "s", "namespace": "${pvc.name}"}),
        "at '/storageClasses/0/secret/namespace'",
    ),
    "a reclaim policy of old": (
        a_class(reclaimPolicy="Recycle"),
        "at '/storageClasses/0/reclaimPolicy'",
    ),
    "a parameter of a snapshot class": (
        'volumeSnapshotClasses=[{"name": "s", "parameters": {}}]',
        "at '/volumeSnapshotClasses/0': additional properties 'parameters'",
    ),
    "a limit that is none": (
        'volumeAttributesClasses=[{"name": "v", "parameters": {"iops": "many"}}]',
        "at '/volumeAttributesClasses/0/parameters/iops'",
    ),
    "no limit at all": (
        'volumeAttributesClasses=[{"name": "v", "parameters": {}}]',
        "at '/volumeAttributesClasses/0/parameters': minProperties",
    ),
    "an alert that does not exist": (
        'metrics.prometheusRule.disabled=["Rbdcrypt"]',
        "at '/metrics/prometheusRule/disabled/0'",
    ),
    "an argument that is none": (
        'node.extraArgs=["help"]',
        "at '/node/extraArgs/0'",
    ),
    "a time without a unit": ('sidecars.timeout="60"', "at '/sidecars/timeout'"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=list(REFUSED))
def test_the_schema_refuses(given: str, said: str) -> None:
    with pytest.raises(HelmError) as caught:
        rendered.rendered_with(given)
    assert f"- {said}" in str(caught.value)


def test_a_chart_that_this_one_is_part_of_may_hand_its_globals_down() -> None:
    assert rendered.rendered_with('global={"imageRegistry": "x"}')


def test_an_older_kubernetes_is_refused() -> None:
    words = (rendering.helm(), "template", "x", str(rendering.CHART))
    values_file = str(rendering.cases()["minimal"])
    with pytest.raises(HelmError, match=re.escape("requires kubeVersion: >=1.34")):
        rendering.run(*words, "--kube-version", "1.33.9", "--values", values_file)
