#!/usr/bin/env bash
# Checks everything under deploy/ that can be checked without a container engine and without a cluster:
# the Dockerfile with hadolint, the manifests with check.py, and check.py with check_test.py.
# Its Python environment goes to $AFDG_DEPLOY_VENV, target/deploy-python unless told.
set -euo pipefail
cd "$(dirname "$0")/.."

export PYTHONDONTWRITEBYTECODE=1
venv=${AFDG_DEPLOY_VENV:-target/deploy-python}
if ! cmp -s deploy/requirements.txt "$venv/installed.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement deploy/requirements.txt
  cp deploy/requirements.txt "$venv/installed.txt"
fi

"$venv/bin/hadolint" deploy/Dockerfile
echo "deploy/Dockerfile: hadolint has nothing to say"
"$venv/bin/python" deploy/check.py
"$venv/bin/python" deploy/check_test.py
