# SPDX-License-Identifier: Apache-2.0
"""CSI servicers: they translate, and leave every decision to the layers below.

gRPC reads GRPC_ENABLE_FORK_SUPPORT when it is first imported, which only modules
of this package do.  Its fork handlers are turned off: the driver spawns its
processes and never forks one that has gRPC or librbd threads.
"""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
