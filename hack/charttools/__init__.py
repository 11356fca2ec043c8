# SPDX-License-Identifier: Apache-2.0
"""What hack/chart is made of: the values of the chart, its README, its renders."""
