# The image for GPU runners; with `--build-arg DEVICE=cpu` a smaller one for CI. Needs BuildKit.
# torch's wheels bring the CUDA libraries, so the smallest CUDA base is enough: it adds the runtime
# and the compatibility libraries that let CUDA 13 run on the older drivers of data-centre GPUs.
# `make docker-pin` moves the digest. PYTHON is what the base's distribution calls its Python.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:2ab6381d970b211fb93853796dc6707eb8a72575a375c422b17cf4d8b2641701
ARG DEVICE=gpu

FROM ${CUDA_IMAGE} AS python
ARG PYTHON=python3.12
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates ${PYTHON} ${PYTHON}-venv \
 && rm -rf /var/lib/apt/lists/*
RUN ${PYTHON} -m venv /opt/rlhfctl
# A mirror's address may hold a password. Mounted at build time, its pip.conf stays out of every
# layer: `--secret id=pip,src=pip.conf`, and `--secret id=ca,src=ca.pem` for a CA of its own.
ENV PATH=/opt/rlhfctl/bin:$PATH \
    PIP_CONFIG_FILE=/run/secrets/pip

# The locked packages: a layer that only a new lock file changes.
FROM python AS packages-gpu
COPY requirements-gpu.lock /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    pip install --require-hashes -r /src/requirements-gpu.lock

# The same packages and hashes without the CUDA libraries. torch's CPU build is another file of the
# same version, so it is installed by itself, without a hash.
FROM python AS packages-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements-gpu.lock /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    sed -nE 's/^(torch==[^ ;]+).*/\1/p' /src/requirements-gpu.lock > /src/torch.txt \
 && pip install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r /src/torch.txt \
 && sed -E '/^(cuda|nvidia|torch=|triton)/,/[^\\]$/d' /src/requirements-gpu.lock > /src/requirements-cpu.lock \
 && pip install --no-deps --require-hashes -r /src/requirements-cpu.lock \
 && pip check

FROM python AS package
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY recipes recipes
COPY rlhfctl rlhfctl
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    PIP_CONSTRAINT=requirements.lock pip wheel --no-deps --wheel-dir /dist .

# hadolint ignore=DL3006
FROM packages-${DEVICE} AS packages

FROM ${CUDA_IMAGE}
ARG PYTHON=python3.12
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlhfctl" \
      org.opencontainers.image.description="RLHF from one recipe: SFT, reward model, PPO, evaluation" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
# Further packages of the distribution: `generation.cache_implementation: static` and Triton compile,
# with "g++ python3.12-dev".
ARG PACKAGES=
# hadolint ignore=DL3008,SC2086
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates ${PYTHON} tini ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/rlhfctl /opt/rlhfctl
# A user without an entry in /etc/passwd has no name and no home; libraries ask for both. With
# `docker run --read-only`, what libraries write on the side goes to /tmp, a tmpfs.
ENV PATH=/opt/rlhfctl/bin:$PATH \
    HOME=/home/rlhfctl \
    USER=rlhfctl \
    LOGNAME=rlhfctl \
    HF_HOME=/home/rlhfctl/.cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    TRITON_CACHE_DIR=/tmp/triton \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
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
# `docker ps` shows the result; nothing stops a container over it.
HEALTHCHECK --interval=30m --timeout=2m --start-period=1m CMD ["rlhfctl", "doctor"]
ENTRYPOINT ["tini", "--", "rlhfctl"]
CMD ["--help"]
