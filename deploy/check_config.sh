#!/usr/bin/env bash
# Has the real program read the configurations in deploy/kubernetes/config, with the environment that a pod
# has; nothing is started.
#
#   deploy/check_config.sh target/release/afdg
set -euo pipefail

afdg=${1:?usage: $0 PATH_OF_AFDG}
folder=$(dirname "$0")/kubernetes/config

# What the manifests set, and nothing that happens to be set here.
pod=(
  AFDG_POD_INDEX=2
  AFDG_NAME=afdg-region-node-2
  AFDG_ADVERTISE=afdg-region-node-2.afdg-region-node.afdg.svc.cluster.local:7300
  AFDG_ZONE=
  AFDG_PEER_TOKEN=only-for-this-check
)
for role in catalog region-node extension; do
  env --ignore-environment "${pod[@]}" "$afdg" server "$role" --config "$folder/$role.toml" --print-config >/dev/null
  echo "deploy/kubernetes/config/$role.toml: afdg reads it"
done
