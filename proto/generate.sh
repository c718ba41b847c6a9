#!/bin/sh
# Regenerates meshd/proto from proto/. Needs the compilers (pip install 'meshd[proto]') in the Python named by PYTHON.
# It works in an empty directory, because the compiler runs its own, older ruff, which must not read our pyproject.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
python=$(command -v "$python")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/out"
cd "$work"
PATH=$(dirname "$python"):$PATH "$python" -m grpc_tools.protoc -I "$root/proto" \
  --python_betterproto2_out="$work/out" --python_betterproto2_opt=client_generation=none \
  $(cd "$root/proto" && find kuma -name '*.proto' | sort)
rm -rf "$root/meshd/proto"
cp -R "$work/out" "$root/meshd/proto"
