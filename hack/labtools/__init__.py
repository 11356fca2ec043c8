# SPDX-License-Identifier: Apache-2.0
"""What the executables in `hack/` are made of.  Standard library only.

Runs on the Python of Debian 12 (3.11) outside the lab and on that of Debian 13
inside it, before anything of the project is installed.
"""
