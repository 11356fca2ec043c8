# SPDX-License-Identifier: Apache-2.0
"""Snapshots on real Ceph: the same rules as on the fake."""

from tests.unit.provisioning.test_stray_snapshots import *  # noqa: F403  # the tests are the same
