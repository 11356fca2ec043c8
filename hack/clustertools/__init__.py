# SPDX-License-Identifier: Apache-2.0
"""What `hack/cluster` is made of: a Kubernetes of one node in an isolated lab.

Standard library only.  Each module owns one part: what is built (`binaries`),
how the parts know each other (`places`, `certificates`, `network`), the parts
themselves (`controlplane`, `runtime`, `kubelet`), and what is installed in them
(`snapshots`, `driver`).
"""
