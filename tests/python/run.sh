#!/usr/bin/env bash
# Runs a Python program against a grid, with stubs generated from the .proto files by gRPC's own tools.
#
#   tests/python/run.sh test_clients.py --endpoint 127.0.0.1:7400
#   tests/python/run.sh hostile.py --extension 127.0.0.1:7400 --catalog 127.0.0.1:7100
#
# Its Python environment goes to $AFDG_VENV, target/python unless told; the stubs to a temporary folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if [ $# -eq 0 ]; then
  echo "usage: $0 test_clients.py|hostile.py ARGUMENTS" >&2
  exit 2
fi
program=$here/$1
shift

venv=${AFDG_VENV:-$root/target/python}
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/installed.txt"
fi

stubs=$(mktemp -d)
trap 'rm -rf "$stubs"' EXIT
"$venv/bin/python" -m grpc_tools.protoc \
  --proto_path="$root/proto" \
  --proto_path="$root/examples/counter/proto" \
  --proto_path="$root/examples/bank/proto" \
  --proto_path="$root/examples/shop/proto" \
  --python_out="$stubs" --grpc_python_out="$stubs" \
  afdg/options.proto afdg/v1/grid.proto counter/v1/counter.proto bank/v1/bank.proto shop/v1/shop.proto

PYTHONPATH=$stubs PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" "$program" "$@"
