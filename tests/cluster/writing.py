# SPDX-License-Identifier: Apache-2.0
"""A pod that writes blocks and their checksums without end, and what it left."""

from __future__ import annotations

from typing import Final

from tests.cluster.tenant import Tenant

# Each file is named after its content, and gets its name when that is stored: it is
# whole, or not there.
WRITER: Final = """
n=0
cd /data
while :; do
  n=$((n+1)); slot=slot-$((n % 40))
  if dd if=/dev/urandom of=new bs=256K count=1 conv=fsync 2>/dev/null \
    && sum=$(sha256sum < new) && rm -f $slot-* && mv new $slot-${sum%% *}
  then echo $n > /tmp/count && mv /tmp/count /tmp/written
  else echo $n >> /tmp/failed
  fi
done
"""
"""What the pod runs, with the volume at /data.

A write that fails is one more line in /tmp/failed; how many went well is in
/tmp/written.
"""

_VERIFY: Final = """
cd /data
for file in slot-*; do
  sum=$(sha256sum < $file)
  test ${file##*-} = ${sum%% *} || { echo $file; exit 1; }
done
ls slot-* | wc -l
"""

RESUMING_WRITER: Final = f"""
if ls /data/slot-* > /dev/null 2>&1; then
{_VERIFY}
fi
{WRITER}
"""
"""The same, which ends at once where blocks of an earlier one are not whole."""


def written(tenant: Tenant, pod: str = "writer") -> int:
    """Return how many blocks the writer has written."""
    return int(tenant.run(pod, "cat /tmp/written"))


def require_progress(tenant: Tenant, pod: str = "writer") -> None:
    """Fail unless the writer goes on, and no write of it has ever failed."""
    count = written(tenant, pod)
    tenant.run(pod, "sleep 2; test ! -e /tmp/failed")
    assert written(tenant, pod) > count


def require_whole(tenant: Tenant, pod: str) -> None:
    """Fail unless a pod finds blocks, and all of them as they were written."""
    assert int(tenant.run(pod, _VERIFY)) > 0


def wait_until_writing(tenant: Tenant, pod: str = "writer") -> None:
    """Wait for the writer's first block."""
    tenant.run(pod, "until test -e /tmp/written; do sleep 0.1; done")


def require_waiting(tenant: Tenant, pod: str = "writer") -> None:
    """Fail unless the writer stands still, with no write of it refused."""
    count = written(tenant, pod)
    tenant.run(pod, "sleep 2; test ! -e /tmp/failed")
    assert written(tenant, pod) == count
