# SPDX-License-Identifier: Apache-2.0
#
# One image for controller, node service and datapath; the command chooses:
#   docker build -t rbdcrypt-csi .
#   docker run rbdcrypt-csi controller
# Without a registry: hack/image build.
#
# Debian trixie carries Python 3.13 together with librbd and its bindings
# (18.2.7), which exist in no package index; the environment therefore sees the
# system's site-packages, and all stages share one Python.
#
# A private package index or certificate authority comes as a secret, which is in
# no layer: --secret id=pip.conf,src=… --secret id=ca.crt,src=…

FROM debian:trixie-slim AS dependencies
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir "uv==0.13.*"
WORKDIR /src
COPY pyproject.toml uv.lock ./
# uv reads the lock and pip installs from it, since pip's settings are the ones
# that name a private index.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.crt,target=/etc/ssl/certs/ca-certificates.crt \
    PATH=/opt/build/bin:$PATH \
    && uv export --quiet --frozen --only-group proto --output-file /opt/proto.txt \
    && uv export --quiet --frozen --no-default-groups --no-emit-project \
        --output-file /opt/driver.txt \
    && pip install --no-cache-dir --no-deps --require-hashes -r /opt/proto.txt \
    && python3 -m venv --without-pip --system-site-packages /opt/rbdcrypt \
    && pip --python /opt/rbdcrypt/bin/python install \
        --no-cache-dir --no-deps --no-compile --require-hashes -r /opt/driver.txt \
    # The Kubernetes client once more, for asyncio, which the driver does not use:
    # a quarter of the environment.
    && rm -r /opt/rbdcrypt/lib/python3.*/site-packages/kubernetes/aio \
    # Bytecode that does not depend on files' times: whoever copies the image may
    # change them, and then every start would compile everything.
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/rbdcrypt

FROM dependencies AS build
COPY LICENSE hatch_build.py ./
COPY proto proto
COPY csi_driver csi_driver
ARG VERSION
# Apart from its dependencies, so that a change of the code is a small layer.
RUN PATH=/opt/build/bin:$PATH \
    && pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /opt/wheel . \
    && pip --python /opt/rbdcrypt/bin/python install --no-deps --no-index \
        --no-compile --no-warn-script-location --root /driver /opt/wheel/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash \
        -s /driver /driver \
    && if [ -n "$VERSION" ]; then ls /opt/wheel/*-"$VERSION"-*; fi

FROM debian:trixie-slim
# fuse3, libnbd-bin: devices where the kernel has no nbd; kmod loads it.
# tini: the first process, see below.  No setuid program is needed in here.
RUN --mount=type=tmpfs,target=/var/cache/apt \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/log \
    apt-get update \
    && apt-get install --yes --no-install-recommends \
        cryptsetup-bin \
        e2fsprogs \
        fuse3 \
        kmod \
        libnbd-bin \
        mount \
        python3 \
        python3-rados \
        python3-rbd \
        tini \
        util-linux \
        xfsprogs \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && groupadd --gid 65532 rbdcrypt \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir / \
        --shell /usr/sbin/nologin rbdcrypt
COPY --from=dependencies /opt/rbdcrypt /opt/rbdcrypt
COPY --from=build /driver /
# gRPC's fork handlers can deadlock a process that starts mount or mkfs.
ENV GRPC_ENABLE_FORK_SUPPORT=0 \
    PATH=/opt/rbdcrypt/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# No USER: node and datapath mount filesystems and make devices, as root.  The
# controller needs nothing of that and runs as 65532, which its pod says.
#
# tini, because a first process gets no signal that it has no handler for yet, and
# has to collect what other processes leave behind: tools that outlive the call
# that was killed, commands run by `kubectl exec`.  -s: it does so in a pod that
# shares its process namespace, too, where it is not the first.
ENTRYPOINT ["tini", "-s", "--", "rbdcrypt-csi"]
CMD ["--help"]
ARG REVISION
ARG VERSION
LABEL org.opencontainers.image.title="rbdcrypt-csi" \
    org.opencontainers.image.description="Kubernetes CSI driver for Ceph RBD volumes encrypted by librbd" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/rbdcrypt/rbdcrypt-csi" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
