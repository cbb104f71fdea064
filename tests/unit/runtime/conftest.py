"""A stand-in for a compiled library, made by the system's C compiler, that follows the ABI and computes little."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzc.runtime.metadata import Metadata, dumps

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct { int busy; int pid; } model;
static int alive = 0;
static const int in_sizes[] = {IN_SIZES}, out_sizes[] = {OUT_SIZES};

int fake_alive(void) { return alive; }
int32_t sqz_abi_version(void) { return ABI; }
const char *sqz_metadata(void) { return METADATA; }
const char *sqz_strerror(int32_t code) { return code == 5 ? "no CPU feature avx9000" : code ? "some fault" : "fine"; }
size_t sqz_workspace_bytes(void) { return 4096; }

int32_t sqz_create(model **out, int32_t threads) {
    *out = NULL;
    if (CREATE_STATUS) return CREATE_STATUS;
    if (threads > 8) return 3;
    *out = calloc(1, sizeof(model));
    (*out)->pid = getpid();
    ++alive;
    return 0;
}

void sqz_destroy(model *m) { if (m) { --alive; free(m); } }

/* Every element of output j, for each unit of the batch, is (j + 1) times SCALE times the sum of all inputs. */
static void compute(int64_t batch, const void *const *in, void *const *out) {
    for (int64_t b = 0; b < batch; ++b) {
        float sum = 0;
        for (unsigned i = 0; i < sizeof in_sizes / sizeof *in_sizes; ++i)
            for (int k = 0; k < in_sizes[i]; ++k) sum += ((const float *)in[i])[b * in_sizes[i] + k];
        for (unsigned j = 0; j < sizeof out_sizes / sizeof *out_sizes; ++j)
            for (int k = 0; k < out_sizes[j]; ++k) ((float *)out[j])[b * out_sizes[j] + k] = (j + 1) * SCALE * sum;
    }
}

/* Fails when two calls use a handle at once, or a process a handle that it did not make. A negative first value makes
   the call take a quarter of a second. */
int32_t RUN_NAME(model *m, int64_t batch, const void *const *in, void *const *out) {
    if (m->pid != getpid()) return 77;
    if (__atomic_exchange_n(&m->busy, 1, __ATOMIC_SEQ_CST)) return 78;
    if (batch && *(const float *)in[0] < 0) usleep(250000);
    compute(batch, in, out);
    __atomic_store_n(&m->busy, 0, __ATOMIC_SEQ_CST);
    return RUN_STATUS;
}

int32_t sqz_run_in(void *w, int64_t batch, const void *const *in, void *const *out) {
    compute(batch, in, out);
    return w ? 0 : 1;
}
"""

BuildLibrary = Callable[..., Path]


def tensor(name: str, *shape: int, layout: str = "", dtype: str = "f32") -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype, "layout": layout}


@pytest.fixture
def make_metadata() -> Callable[..., Metadata]:
    """Valid metadata of a model f32[1,3,4,5] -> f32[1,6], with any field replaced."""

    def make(**changes: Any) -> Metadata:
        metadata: dict[str, Any] = {
            "abi": 1,
            "name": "fake",
            "prefix": "fake",
            "inputs": [tensor("data", 1, 3, 4, 5, layout="nchw")],
            "outputs": [tensor("scores", 1, 6)],
            "mean": [1.0, 2.5, 3.0],
            "channel_order": "BGR",
            "labels": None,
            "labels_sha256": None,
            "sources": [{"name": "predict_net.pb", "sha256": "0" * 64, "verified": True}],
            "licence": "Apache-2.0",
            "passes": ["fold-mean", "fuse-conv-relu{limit=3}"],
            "opt_level": 3,
            "target": {"name": "x86-64-v3", "features": ["avx2", "fma"]},
            "versions": {"sqzc": "0.1.0", "llvm": "20.1"},
            "weights": "pretrained",
            "flops": 784000000,
            "params": 1235000,
            "workspace_bytes": 4096,
            "tolerance": 1e-6,
        }
        assert changes.keys() <= metadata.keys()
        return metadata | changes  # type: ignore[return-value]

    return make


@pytest.fixture
def build_library(tmp_path: Path, make_metadata: Callable[..., Metadata]) -> BuildLibrary:
    """Compiles the stand-in; keyword arguments replace metadata fields, or the C macros in capitals."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the stand-in library with")

    def build(path: Path = tmp_path / "libfake.so", **changes: Any) -> Path:
        macros = {"ABI": "1", "CREATE_STATUS": "0", "RUN_STATUS": "0", "RUN_NAME": "sqz_run", "SCALE": "1"}
        macros |= {name: str(changes.pop(name)) for name in list(changes) if name.isupper() and name != "METADATA"}
        text = changes.pop("METADATA", None)
        metadata = make_metadata(**changes)
        macros["METADATA"] = json.dumps(dumps(metadata) if text is None else text)
        for macro, field in (("IN_SIZES", "inputs"), ("OUT_SIZES", "outputs")):
            sizes = []
            for entry in metadata[field]:  # type: ignore[literal-required]
                size = 1
                for dim in entry["shape"]:
                    size *= dim
                sizes.append(str(size))
            macros[macro] = ", ".join(sizes)
        source = tmp_path / "fake.c"
        source.write_text("".join(f"#define {k} {v}\n" for k, v in macros.items()) + SOURCE)
        fresh = path.with_suffix(".new")
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(fresh), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        fresh.replace(path)
        return path

    return build
