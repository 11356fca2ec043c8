# SPDX-License-Identifier: Apache-2.0
"""Requests that cannot be carried out, on real Ceph: the same rules as on the fake."""

from tests.unit.provisioning.test_bad_input import *  # noqa: F403  # the tests are the same
