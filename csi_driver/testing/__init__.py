# SPDX-License-Identifier: Apache-2.0
"""Fakes and fault wrappers, each proven equal to the real thing by a contract."""
