# SPDX-License-Identifier: Apache-2.0
"""Home of what `python hatch_build.py` makes from proto/*.proto.

Beside this file stand, for CSI and for kubelet's plugin registration, *_pb2
(messages), *_pb2_grpc (services) and their type stubs once the package has been
built or installed; git ignores them.
"""
