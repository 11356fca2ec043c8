# SPDX-License-Identifier: Apache-2.0
"""The rules of records on real Ceph: the same as on the fake."""

from tests.unit.provisioning.test_records import *  # noqa: F403  # the tests are the same
