#!/bin/sh
# Writes caffe2_pb2.py from caffe2.proto. Needs grpcio-tools 1.73 (protoc 31), whose output loads under protobuf
# 6.31 and 7.
#
#     python -m venv pbgen && pbgen/bin/pip install 'grpcio-tools==1.73.1' 'setuptools<81'
#     PYTHON=pbgen/bin/python frontends/caffe2/generate_pb2.sh
set -eu
cd "$(dirname "$0")/../.."
# The file's registered name carries the package path, so that it never collides with another caffe2.proto in a process.
mapping="sqzc/frontends/caffe2/caffe2.proto=frontends/caffe2/caffe2.proto"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/sqzc/frontends/caffe2"
cp "${mapping#*=}" "$work/${mapping%%=*}"
"${PYTHON:-python}" -m grpc_tools.protoc -I "$work" --python_out="$work" "$work/${mapping%%=*}"
cp "$work/sqzc/frontends/caffe2/caffe2_pb2.py" frontends/caffe2/
