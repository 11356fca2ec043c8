# SPDX-License-Identifier: Apache-2.0
"""The rules of the driver as plain values: no I/O, no third-party imports."""
