"""A library on its own: from C, from Python with numpy alone, and made by every linker there is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from small_nets import CLASSES, INPUT_SHAPE, write_labels, write_small_net

import sqzc
from sqzc.backends.llvm.link import LINKERS, find_linker
from sqzc.cli.main import run
from sqzc.diagnostics import LinkError

PROGRAM = r"""
#include "small.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads one image as raw floats, classifies it with create/run and with run_in, and prints all scores. */
int main(int argc, char **argv) {
    static float image[small_INPUT_0_ELEMENTS], scores[small_OUTPUT_0_ELEMENTS], again[small_OUTPUT_0_ELEMENTS];
    const void *inputs[small_INPUT_COUNT] = {image};
    void *outputs[small_OUTPUT_COUNT] = {scores};
    small_model *model = NULL;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    int32_t status;
    size_t i;
    if (!file || fread(image, sizeof(float), small_INPUT_0_ELEMENTS, file) != small_INPUT_0_ELEMENTS) return 10;
    fclose(file);
    if (small_abi_version() != small_ABI_VERSION) return 11;
    if (!strstr(small_metadata(), "\"prefix\":\"small\"")) return 12;
    if ((status = small_create(&model, 2)) != SQZC_OK) {
        fprintf(stderr, "%s\n", small_strerror(status));
        return 13;
    }
    if (small_run(model, 1, inputs, outputs) != SQZC_OK) return 14;
    if (small_run(model, -1, inputs, outputs) != SQZC_ERR_BATCH) return 15;
    if (small_run(NULL, 1, inputs, outputs) != SQZC_ERR_NULL) return 16;
    small_destroy(model);
    {
        size_t bytes = (small_workspace_bytes() + 63) / 64 * 64;
        void *workspace = aligned_alloc(small_WORKSPACE_ALIGNMENT, bytes ? bytes : 64);
        outputs[0] = again;
        memset(workspace, 0xff, bytes);
        if (small_run_in(workspace, 1, inputs, outputs) != SQZC_OK) return 17;
        free(workspace);
    }
    if (memcmp(scores, again, sizeof scores)) return 18;
    for (i = 0; i < small_OUTPUT_0_ELEMENTS; i++) printf("%.9g\n", scores[i]);
    return 0;
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libsmall.so, libsmall.a, small.o, small.h, and an image with its expected scores."""
    folder = tmp_path_factory.mktemp("made")
    net = write_small_net(folder / "net")
    write_labels(net)
    for name in ("libsmall.so", "libsmall.a", "small.o", "small.h"):
        arguments = ["compile", str(net), "-o", str(folder / name), "--prefix", "small", "--mean", "104,117,123"]
        assert run(arguments) == 0
    image = np.random.default_rng(0).uniform(0, 255, INPUT_SHAPE).astype(np.float32)
    image.tofile(folder / "image.raw")
    np.save(folder / "image.npy", image)
    scores = sqzc.evaluate(sqzc.lift(net, mean=(104, 117, 123)), {"data": image})["prob"]
    np.save(folder / "scores.npy", scores.ravel())
    return folder


def build_and_run(folder: Path, made: Path, compiler: str, flags: list[str], link: list[str]) -> np.ndarray:
    """The scores that the C program prints."""
    source = folder / ("main.cc" if "++" in compiler else "main.c")
    source.write_text(PROGRAM)
    command = [compiler, *flags, "-Wall", "-Wextra", "-Werror", f"-I{made}", str(source), "-o", "main", *link]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    env = {**os.environ, "LD_LIBRARY_PATH": str(made)}
    done = subprocess.run(
        ["./main", str(made / "image.raw")], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return np.array([float(line) for line in done.stdout.split()], np.float32)


@pytest.mark.parametrize("kind", ["shared", "archive", "object"])
@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_c_program(compiler: str, kind: str, made: Path, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    link = {
        "shared": [f"-L{made}", "-lsmall"],
        "archive": [str(made / "libsmall.a"), "-lpthread"],
        "object": [str(made / "small.o"), "-lpthread"],
    }[kind]
    flags = ["-std=c11", "-pedantic"] if compiler == "cc" else ["-std=c++17"]
    scores = build_and_run(tmp_path, made, compiler, flags, link)
    np.testing.assert_allclose(scores, np.load(made / "scores.npy"), rtol=0, atol=2e-6)
    assert len(scores) == CLASSES


def test_two_models_in_one_program(made: Path, tmp_path: Path) -> None:
    """Their functions and constants must not collide."""
    if shutil.which("cc") is None:
        pytest.skip("no cc on this machine")
    net = write_small_net(tmp_path / "other", seed=5)
    for suffix in (".a", ".h"):
        assert run(["compile", str(net), "-o", str(tmp_path / f"other{suffix}"), "--prefix", "other"]) == 0
    (tmp_path / "main.c").write_text(
        '#include "small.h"\n#include "other.h"\n#include <string.h>\n'
        "int main(void) { return strcmp(small_metadata(), other_metadata()) == 0 || other_abi_version() != 1; }\n"
    )
    command = ["cc", f"-I{made}", "-I.", "main.c", "other.a", str(made / "libsmall.a"), "-lpthread", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert subprocess.run(["./main"], cwd=tmp_path, timeout=60).returncode == 0


def test_python_with_numpy_alone(made: Path) -> None:
    """Loading and running must not so much as ask for the compiler's packages."""
    program = """
        import sys
        forbidden = {"llvmlite", "onnx", "google", "networkx", "PIL", "click", "rich", "safetensors", "platformdirs"}
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in forbidden:
                    raise ImportError(f"{name} is not to be imported")
        sys.meta_path.insert(0, Refuse())
        import numpy as np
        import sqzc
        model = sqzc.load("libsmall.so")
        scores = model(np.load("image.npy")).ravel()
        np.testing.assert_allclose(scores, np.load("scores.npy"), rtol=0, atol=2e-6)
        assert model.metadata["labels"][3] == "thing 3, number 3"
        ours = {name for name in sys.modules if name.startswith("sqzc.")}
        assert not {name for name in ours if name.split(".")[1] not in ("runtime", "diagnostics")}, ours
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        cwd=made,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("linker", LINKERS)
def test_every_linker_makes_a_library_that_answers_alike(linker: str, made: Path, tmp_path: Path) -> None:
    try:
        find_linker(linker)
    except LinkError:
        pytest.skip(f"{linker} is not installed")
    output = tmp_path / "lib.so"
    arguments = ["compile", str(made / "net"), "-o", str(output), "--mean", "104,117,123", "--linker", linker]
    assert run(arguments) == 0
    image = np.load(made / "image.npy")
    np.testing.assert_array_equal(sqzc.load(output)(image), sqzc.load(made / "libsmall.so")(image))


def test_no_linker_at_all(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sqzc.backends.llvm.link._ziglang", lambda: None)
    assert run(["compile", str(made / "net"), "-o", str(tmp_path / "lib.so")]) == 1
    message = capfd.readouterr().err
    assert message.count("error[") == 1
    assert "binutils" in message
    assert "sqzc[link]" in message
    assert os.listdir(tmp_path) == []
    assert sqzc.compile(made / "net").path is None


def test_undefined_symbols_are_libc_only(made: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf on this machine")
    text = subprocess.run(
        ["readelf", "--dyn-syms", "--wide", "--dynamic", str(made / "libsmall.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "NEEDED" not in text
    defined = [line.split()[-1] for line in text.splitlines() if " GLOBAL DEFAULT " in line and " UND " not in line]
    assert defined
    assert all(name.startswith(("small_", "sqz_")) for name in defined)


def test_metadata_is_json(made: Path) -> None:
    facts = sqzc.load(made / "libsmall.so").metadata
    assert json.loads(json.dumps(facts)) == facts
