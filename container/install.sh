#!/usr/bin/env bash
# The steps of the image, for Dockerfile and cuvler.def alike; run as root in the folder that they
# copy the project to. Every package comes from requirements.lock, with its hash.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
# The compiler is for pydensecrf2 alone, which has no wheels.
apt-get update
apt-get install --yes --no-install-recommends ca-certificates g++ python3-dev python3-venv
python3 -m venv /opt/cuvler
export PATH="/opt/cuvler/bin:$PATH" PIP_NO_CACHE_DIR=1
bash workflow/envs/detector.post-deploy.sh
apt-get purge --yes --auto-remove g++ python3-dev
rm -rf /var/lib/apt/lists/*
cuvler --version
