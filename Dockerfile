# SPDX-License-Identifier: Apache-2.0
#
# One image for controller, node service and datapath; the command chooses:
#   docker build -t rbdcrypt-csi .
#   docker run rbdcrypt-csi controller
#
# Debian trixie carries Python 3.13 together with librbd and its bindings
# (18.2.7), which exist in no package index; the environment therefore sees the
# system's site-packages, and both stages share one Python.

FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==0.13.*"
ENV PATH=/opt/uv/bin:$PATH \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/rbdcrypt \
    UV_PYTHON=/usr/bin/python3 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /src
RUN uv venv --system-site-packages /opt/rbdcrypt
# Dependencies first: they change less often than the code.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-default-groups --no-install-project
COPY LICENSE README.md hatch_build.py ./
COPY proto proto
COPY csi_driver csi_driver
RUN uv sync --frozen --no-default-groups --no-editable

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates \
        cryptsetup-bin \
        e2fsprogs \
        fuse3 \
        kmod \
        libnbd-bin \
        mount \
        python3 \
        python3-rados \
        python3-rbd \
        util-linux \
        xfsprogs \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/rbdcrypt /opt/rbdcrypt
# gRPC's fork handlers can deadlock a process that starts mount or mkfs.
ENV GRPC_ENABLE_FORK_SUPPORT=0 \
    PATH=/opt/rbdcrypt/bin:$PATH \
    PYTHONUNBUFFERED=1
ENTRYPOINT ["rbdcrypt-csi"]
