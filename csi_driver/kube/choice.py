# SPDX-License-Identifier: Apache-2.0
"""Which secrets count for a call: those it brought, or a named Secret's."""

from __future__ import annotations

from collections.abc import Mapping

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.parameters import SecretRef
from csi_driver.kube.contract import SecretReader


def choose_secrets(
    brought: Mapping[str, str],
    named: SecretRef | None,
    reader: SecretReader | None,
) -> Mapping[str, str]:
    """Return the secrets of a call, with those of the named Secret on top.

    PreconditionError if a Secret is named and no API server is configured;
    otherwise the reader's errors.
    """
    if named is None:
        return brought
    if reader is None:
        message = (
            f"the volume names Secret {named}, but this driver has no access to"
            " a Kubernetes API server: run it in a cluster, or set a kubeconfig"
        )
        raise PreconditionError(message)
    return {**brought, **reader.read_secret(named)}
