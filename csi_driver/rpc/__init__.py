# SPDX-License-Identifier: Apache-2.0
"""The CSI servicers: proto to domain, errors to status codes, nothing else."""
