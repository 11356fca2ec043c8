# SPDX-License-Identifier: Apache-2.0
"""Changing limits on real Ceph: the same rules as on the fake."""

from tests.unit.provisioning.test_modify import *  # noqa: F403  # the tests are the same
