# SPDX-License-Identifier: Apache-2.0
"""Home of what `python hatch_build.py` makes from proto/csi.proto.

Beside this file stand csi_pb2 (messages), csi_pb2_grpc (services) and their
type stubs once the package has been built or installed; git ignores them.
"""
