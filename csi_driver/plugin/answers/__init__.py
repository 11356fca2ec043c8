# SPDX-License-Identifier: Apache-2.0
"""What the driver's commands answer, as far as the plugin needs it.

Each reader takes the JSON of one command and raises KeyError for a field that is
not there and TypeError or ValueError for one of another kind.  Fields that it does
not know are left alone: a newer driver may have more.  What the answers mean is
left to those who ask.
"""
