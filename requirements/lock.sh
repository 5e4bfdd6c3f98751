#!/usr/bin/env bash
# Pin every dependency with hashes: the host (all its Pythons in one file), the development tools, and one site folder
# per runtime and Python of a board, with the symbol versions that it needs. Run by hand after a change of an .in file:
# make lock
set -euo pipefail
cd "$(dirname "$0")"
compile() { uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@"; }

compile --universal --python-version 3.11 host.in -o host.txt
compile --universal --python-version 3.11 dev.in -o dev.txt

runtime() { # NAME VERSION PYTHON NUMPY OPENCV
    printf '%s\n' "$1==$2" "numpy==$4" "opencv-python-headless==$5" |
        compile --no-deps --python-version "$3" - -o "../host/liteship/runtimes/$1-$2-cp${3/./}.txt"
}
runtime ai-edge-litert 2.3.0 3.10 2.2.6 5.0.0.93
runtime ai-edge-litert 2.3.0 3.11 2.4.6 5.0.0.93
runtime ai-edge-litert 2.3.0 3.12 2.4.6 5.0.0.93
runtime ai-edge-litert 2.3.0 3.13 2.4.6 5.0.0.93
runtime ai-edge-litert 2.1.0 3.9 2.0.2 5.0.0.93
runtime tflite-runtime 2.14.0 3.9 1.26.4 4.11.0.86
runtime tflite-runtime 2.14.0 3.10 1.26.4 4.11.0.86
runtime tflite-runtime 2.14.0 3.11 1.26.4 4.11.0.86

python needs.py
