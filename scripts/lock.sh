#!/usr/bin/env bash
# Writes both lock files from pyproject.toml; see CONTRIBUTING.md, "Dependencies".
# Valid pins are unchanged; add --upgrade to move to the newest releases.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
torch="torch==2.13.0"

compile() { "$uv" pip compile --quiet --no-header "$@"; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$torch" > "$work/torch.txt"
touch requirements.lock
grep -E '^[a-z0-9]' requirements.lock > "$work/previous.txt" || true
previous=(--constraints "$work/previous.txt")
if [[ ${1:-} == --upgrade ]]; then previous=(); fi

# torch from PyPI depends on the CUDA libraries, its CPU build does not. They are excluded from the
# common lock and pinned in the GPU lock.
everything=(pyproject.toml --group dev --universal --python-version 3.11
  --constraints "$work/torch.txt" "${previous[@]}")
compile "${everything[@]}" --no-annotate | grep -oE '^(nvidia|cuda|triton)[a-z0-9-]*' > "$work/cuda.txt"

{
  cat <<'HEADER'
# The exact set that rlhfctl is developed and tested with: `pip install -r requirements.lock`.
# Written by `make lock`. Without hashes and without index lines, so that torch may be the CPU
# build, the CUDA build or a wheel on disk, which are different files of one version.
HEADER
  compile "${everything[@]}" --no-annotate --excludes "$work/cuda.txt"
} > "$work/requirements.lock"

{
  cat <<'HEADER'
# The same versions for a CUDA machine with Linux and Python 3.12 (the Dockerfile's), without the
# development tools: PyPI's CUDA torch with its libraries, every file by its hash.
# Written by `make lock`.
HEADER
  compile pyproject.toml --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-annotate \
    --constraints <(grep -E '^[a-z0-9]' "$work/requirements.lock")
} > "$work/requirements-gpu.lock"

mv "$work/requirements.lock" "$work/requirements-gpu.lock" .
