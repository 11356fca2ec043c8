# SPDX-License-Identifier: Apache-2.0
"""Deleting and collecting, on real Ceph: the same rules as on the fake."""

from tests.unit.provisioning.test_delete import *  # noqa: F403  # the tests are the same
