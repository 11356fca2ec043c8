# SPDX-License-Identifier: Apache-2.0
"""`python -m csi_driver.plugin` is `kubectl rbdcrypt`."""

from csi_driver.plugin.main import main

if __name__ == "__main__":
    main()
