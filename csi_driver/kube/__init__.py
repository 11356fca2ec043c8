# SPDX-License-Identifier: Apache-2.0
"""What the driver asks the Kubernetes API for, behind small protocols."""
