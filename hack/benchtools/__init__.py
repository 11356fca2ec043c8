# SPDX-License-Identifier: Apache-2.0
"""Measurements of the driver against others on the same Ceph, in the same run."""
