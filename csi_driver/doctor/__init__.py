# SPDX-License-Identifier: Apache-2.0
"""`rbdcrypt-csi doctor`: what a working driver rests on, looked at one by one.

`check` and `judging` are pure and serve the kubectl plugin as well; the others
look at Ceph, at this machine and at the API server.  Nothing is changed, unless
`--write` allows one key in the directory of each place.
"""
