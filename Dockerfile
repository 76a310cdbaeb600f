# syntax=docker/dockerfile:1.7
# The image for GPU runners. torch's wheels bring the CUDA libraries, so the smallest CUDA base is
# enough: it adds the runtime and the compatibility libraries that let CUDA 13 run on the older
# drivers of data-centre GPUs. `make docker-pin` moves the digest.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:2ab6381d970b211fb93853796dc6707eb8a72575a375c422b17cf4d8b2641701

# The locked packages: a layer that only a new lock file changes.
FROM ${CUDA_IMAGE} AS packages
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3.12 python3.12-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3.12 -m venv /opt/rlhfctl
ENV PATH=/opt/rlhfctl/bin:$PATH
COPY requirements-gpu.lock /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes -r /src/requirements-gpu.lock

FROM packages AS package
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY recipes recipes
COPY rlhfctl rlhfctl
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT=requirements.lock pip wheel --no-deps --wheel-dir /dist .

FROM ${CUDA_IMAGE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlhfctl" \
      org.opencontainers.image.description="RLHF from one recipe: SFT, reward model, PPO, evaluation" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3.12 tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/rlhfctl /opt/rlhfctl
# A user without an entry in /etc/passwd has no name and no home; libraries ask for both.
ENV PATH=/opt/rlhfctl/bin:$PATH \
    HOME=/home/rlhfctl \
    USER=rlhfctl \
    LOGNAME=rlhfctl \
    HF_HOME=/home/rlhfctl/.cache/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,from=package,source=/dist,target=/dist \
    pip install --no-cache-dir --no-deps --no-index /dist/*.whl \
 && mkdir -p "$HF_HOME" /workspace \
 && chgrp -R 0 /home/rlhfctl /workspace \
 && chmod -R g+rwX /home/rlhfctl /workspace
WORKDIR /workspace
# Group 0 owns what must be writable, so that `--user "$(id -u)"` works too.
USER 10001:0
ENTRYPOINT ["tini", "--", "rlhfctl"]
CMD ["--help"]
