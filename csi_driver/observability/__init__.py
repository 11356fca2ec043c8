# SPDX-License-Identifier: Apache-2.0
"""How the processes tell what they do: logs and metrics."""
