#!/usr/bin/env bash
# Run by Snakemake in the new environment, from the folder Snakemake was started in, and by
# container/install.sh.
set -euo pipefail
python -m pip install --require-hashes --requirement requirements.lock
python -m pip install --no-deps ./packaging/detectron2 .
