# SPDX-License-Identifier: Apache-2.0
"""What the node does with a volume: stage, publish, grow, measure, and back.

Keys pass through here during one call and are not kept; the export itself
belongs to `datapath`.
"""
