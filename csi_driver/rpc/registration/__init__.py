# SPDX-License-Identifier: Apache-2.0
"""Registering this node's driver with its kubelet, by kubelet's own interface.

kubelet watches a directory, its plugins_registry.  Whoever makes a socket there
is asked who it is (GetInfo), has its NodeGetInfo called on its CSI socket, and is
told how that came out (NotifyRegistrationStatus); after each of its own restarts
kubelet asks again.  When the socket goes, kubelet forgets the driver.  All of it
is in pkg/kubelet/pluginmanager of Kubernetes; no node-driver-registrar is needed.
"""
