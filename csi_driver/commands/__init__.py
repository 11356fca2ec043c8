# SPDX-License-Identifier: Apache-2.0
"""What each command puts together and runs; `cli` gives them their flags.

Nothing here is imported before its command is known, so that no command pays
for the libraries of another.
"""
