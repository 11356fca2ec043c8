# SPDX-License-Identifier: Apache-2.0
"""Container images, made without a registry.  Standard library only, like labtools.

`images` says which there are, `building` makes them, `podman` runs it.
"""
