# SPDX-License-Identifier: Apache-2.0
"""From a user's Secret to the keys of each layer, and nothing about images."""
