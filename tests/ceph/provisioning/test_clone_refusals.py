# SPDX-License-Identifier: Apache-2.0
"""Clones that cannot be, on real Ceph: the same rules as on the fake."""

from tests.unit.provisioning.test_clone_refusals import *  # noqa: F403  # the tests are the same
