# SPDX-License-Identifier: Apache-2.0
"""`python -m csi_driver` is `rbdcrypt-csi`."""

from csi_driver.cli import main

main()
