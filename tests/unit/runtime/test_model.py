"""Loading libraries and running models, against a stand-in library that follows the ABI."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqzc.diagnostics import LibraryError, SqzcError, UsageError
from sqzc.runtime import Model, TensorInfo, load
from sqzc.runtime.abi import FUNCTION_NAMES

BuildLibrary = Callable[..., Path]

TWO_IN_TWO_OUT: dict[str, Any] = {
    "inputs": [
        {"name": "a", "shape": [2, 3], "dtype": "f32", "layout": ""},
        {"name": "b", "shape": [1], "dtype": "f32", "layout": ""},
    ],
    "outputs": [
        {"name": "y", "shape": [2, 2], "dtype": "f32", "layout": ""},
        {"name": "z", "shape": [1], "dtype": "f32", "layout": ""},
    ],
}


def picture(batch: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(batch * 60, dtype=np.float32).reshape(batch, 3, 4, 5)


@pytest.fixture
def model(build_library: BuildLibrary) -> Model:
    return load(build_library())


def in_process(path: Path, **options: Any) -> Model:
    library = ctypes.CDLL(str(path))
    addresses = {}
    for name in FUNCTION_NAMES:
        address = ctypes.cast(getattr(library, f"sqz_{name}"), ctypes.c_void_p).value
        assert address is not None
        addresses[name] = address
    return Model.from_functions(addresses, library, **options)


# Running


def test_one_input_one_output(model: Model) -> None:
    got = model(picture())
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.full((1, 6), picture().sum()))


def test_a_batch_runs_unit_by_unit(model: Model) -> None:
    x = picture(3)
    got = model(x)
    assert got.shape == (3, 6)
    np.testing.assert_array_equal(got[:, 0], x.sum(axis=(1, 2, 3)))


def test_an_empty_batch_gives_empty_outputs(model: Model) -> None:
    assert model(picture(0)).shape == (0, 6)


def test_what_it_says_about_itself(model: Model) -> None:
    assert model.inputs == (TensorInfo("data", (1, 3, 4, 5), np.dtype("float32"), "nchw"),)
    assert model.outputs[0].name == "scores"
    assert model.metadata["weights"] == "pretrained"
    assert model.threads == 1
    assert model.workspace_bytes == 4096
    assert "data: float32[1, 3, 4, 5] NCHW" in repr(model)


def test_several_inputs_and_outputs_with_a_leading_dimension_of_their_own(build_library: BuildLibrary) -> None:
    model = load(build_library(**TWO_IN_TWO_OUT))
    got = model.run({"b": np.array([10.0, 20], np.float32), "a": np.ones((4, 3), np.float32)})
    np.testing.assert_array_equal(got["y"], [[16, 16], [16, 16], [26, 26], [26, 26]])
    np.testing.assert_array_equal(got["z"], [32, 52])
    with pytest.raises(UsageError, match=r"model\.run"):
        model(picture())


def test_inputs_may_be_read_only(model: Model) -> None:
    x = picture()
    x.flags.writeable = False
    assert model(x)[0, 0] == x.sum()


# Inputs that do not fit


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (picture().astype(np.float64), ["expected: float32", "got:      float64", "x.astype(np.float32)"]),
        (picture().astype(np.uint8), ["got:      uint8"]),
        (picture().astype(">f4"), ["foreign byte order"]),
        (picture().tolist(), ["numpy array", "got:      list", "np.asarray"]),
        (None, ["got:      NoneType"]),
    ],
)
def test_a_wrong_type_is_a_type_error(model: Model, x: Any, words: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        model(x)
    assert isinstance(caught.value, SqzcError)
    for word in [*words, "input 'data'"]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (picture()[0], ["(N, 3, 4, 5)", "got:      (3, 4, 5)", "x[np.newaxis]"]),
        (picture().reshape(1, 4, 5, 3), ["layout NCHW", "transpose(0, 3, 1, 2)"]),
        (picture()[0].reshape(4, 5, 3), ["transpose(2, 0, 1)"]),
        (picture()[:, :, :3], ["got:      (1, 3, 3, 5)"]),
        (picture()[..., np.newaxis], ["(1, 3, 4, 5, 1)"]),
        (np.ones(1, np.float32), ["got:      (1,)"]),
    ],
)
def test_a_wrong_shape_is_a_value_error(model: Model, x: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="wrong shape") as caught:
        model(x)
    assert isinstance(caught.value, SqzcError)
    for word in words:
        assert word in str(caught.value)


def test_an_array_that_is_not_dense_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"np\.ascontiguousarray\(x\)"):
        model(np.asfortranarray(picture()))
    with pytest.raises(ValueError, match="row-major"):
        model(picture(4)[::2])
    shifted = np.frombuffer(b"\0" + picture().tobytes(), np.float32, 60, 1).reshape(1, 3, 4, 5)
    with pytest.raises(ValueError, match=r"x\.copy\(\)"):
        model(shifted)


def test_names_of_inputs(model: Model) -> None:
    with pytest.raises(ValueError, match="input 'data' is missing"):
        model.run({})
    with pytest.raises(ValueError, match=r"no input 'dta'(.|\n)*expected: 'data'(.|\n)*did you mean 'data'"):
        model.run({"dta": picture()})
    with pytest.raises(ValueError, match="no input 3"):
        model.run({"data": picture(), 3: picture()})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="by name"):
        model.run(picture())  # type: ignore[arg-type]


def test_inputs_must_agree_about_the_batch(build_library: BuildLibrary) -> None:
    model = load(build_library(**TWO_IN_TWO_OUT))
    with pytest.raises(ValueError, match=r"disagree(.|\n)*batch of 1(.|\n)*batch of 3"):
        model.run({"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"\(2\*N, 3\)"):
        model.run({"a": np.ones((3, 3), np.float32), "b": np.ones(1, np.float32)})


def test_a_tensor_without_dimensions_allows_one_unit(build_library: BuildLibrary) -> None:
    scalar = [{"name": "total", "shape": [], "dtype": "f32", "layout": ""}]
    model = load(build_library(outputs=scalar))
    assert model(picture()).shape == ()
    with pytest.raises(ValueError, match="batch of 1 alone"):
        model(picture(2))


# Loading


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="does not exist"):
        load(tmp_path / "none.so")
    with pytest.raises(LibraryError, match="is not a file"):
        load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"hello" * 1000])
def test_a_file_that_is_no_library(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "libx.so"
    path.write_bytes(data)
    with pytest.raises(LibraryError, match=r"cannot be loaded(.|\n)*libx\.so"):
        load(path)


def test_a_library_that_is_not_ours(build_library: BuildLibrary) -> None:
    with pytest.raises(LibraryError, match="an exported function sqz_run"):
        load(build_library(RUN_NAME="other_run"))


def test_another_abi_version(build_library: BuildLibrary) -> None:
    with pytest.raises(LibraryError, match=r"ABI version 1(.|\n)*ABI version 9(.|\n)*compile the model again"):
        load(build_library(ABI=9))


def test_metadata_that_cannot_be_read(build_library: BuildLibrary) -> None:
    with pytest.raises(LibraryError, match="not JSON"):
        load(build_library(METADATA="{"))


def test_a_cpu_that_lacks_a_feature(build_library: BuildLibrary) -> None:
    with pytest.raises(LibraryError, match=r"avx9000(.|\n)*--target native"):
        load(build_library(CREATE_STATUS=5))


def test_a_run_that_fails(build_library: BuildLibrary) -> None:
    model = load(build_library(RUN_STATUS=4))
    with pytest.raises(LibraryError, match=r"some fault \(status 4\)"):
        model(picture())


def test_a_new_file_under_an_old_name_is_loaded_anew(build_library: BuildLibrary) -> None:
    models = [load(build_library(SCALE=scale)) for scale in (1, 2, 3)]
    totals = [float(model(picture())[0, 0]) for model in models]
    assert totals == [float(picture().sum()) * scale for scale in (1, 2, 3)]


# Handles


def alive(path: Path) -> int:
    count: int = ctypes.CDLL(str(path)).fake_alive()
    return count


def test_every_handle_is_destroyed_once(build_library: BuildLibrary) -> None:
    path = build_library()
    with load(path) as model:
        other = model.with_threads(2)
        assert alive(path) == 2
    assert alive(path) == 1
    model.close()
    with pytest.raises(LibraryError, match="has been closed"):
        model(picture())
    assert other(picture())[0, 0] == picture().sum()
    del other
    gc.collect()
    assert alive(path) == 0


def test_numbers_of_threads(model: Model) -> None:
    assert model.with_threads(0).threads == 0
    assert model.with_threads(8).threads == 8
    with pytest.raises(LibraryError, match="some fault"):
        model.with_threads(9)
    for wrong in (-1, 2**31):
        with pytest.raises(UsageError, match="threads"):
            model.with_threads(wrong)
    for wrong_type in (True, 1.0, "2"):
        with pytest.raises(TypeError, match="must be an int"):
            model.with_threads(wrong_type)  # type: ignore[arg-type]


def test_pickling_keeps_path_and_threads(build_library: BuildLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_library()
    monkeypatch.chdir(path.parent)
    model = load(path.name, threads=3)
    text = pickle.dumps(model)
    monkeypatch.chdir("/")
    twin = pickle.loads(text)
    assert twin.path == str(path)
    assert twin.threads == 3
    assert twin(picture())[0, 0] == picture().sum()


def test_a_model_without_a_file(build_library: BuildLibrary) -> None:
    path = build_library()
    model = in_process(path, threads=2)
    assert model.path is None
    assert model.with_threads(1)(picture())[0, 0] == picture().sum()
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(LibraryError, match="cannot be pickled"):
            attempt(model)
    del model
    gc.collect()
    assert alive(path) == 0


def test_the_code_outlives_the_handle(build_library: BuildLibrary) -> None:
    """What keeps the code in memory goes only after `destroy` has run."""
    path = build_library()
    counts = []

    class Keeper:
        def __del__(self) -> None:
            counts.append(alive(path))

    functions = in_process(path)._functions
    addresses = {name: ctypes.cast(getattr(functions, name), ctypes.c_void_p).value or 0 for name in FUNCTION_NAMES}
    model = Model.from_functions(addresses, Keeper())
    assert alive(path) == 1
    assert counts == []
    del model
    gc.collect()
    assert counts == [0]


def test_threads_take_turns(model: Model) -> None:
    slow = picture()
    slow[0, 0, 0, 0] = -1
    failures = []

    def work() -> None:
        try:
            model(slow)
        except LibraryError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_different_handles_run_at_once(model: Model) -> None:
    slow = picture()
    slow[0, 0, 0, 0] = -1
    models = [model, *(model.with_threads(1) for _ in range(3))]
    threads = [threading.Thread(target=each, args=(slow,)) for each in models]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 0.75, "four calls of a quarter of a second ran one after the other"


def run_script(script: str, *arguments: str) -> None:
    import sqzc

    root = str(Path(next(iter(sqzc.__path__))).parent)
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr


def test_a_forked_child_makes_its_own_handle(build_library: BuildLibrary) -> None:
    """Even when another thread was in the middle of a call, holding the lock, at the moment of the fork."""
    script = """
        import os, sys, threading, time
        import numpy as np
        from sqzc.runtime import load
        model = load(sys.argv[1])
        slow = np.full((1, 3, 4, 5), -1, np.float32)
        thread = threading.Thread(target=model, args=(slow,))
        thread.start()
        time.sleep(0.05)
        child = os.fork()
        if child == 0:
            ok = model(np.ones((1, 3, 4, 5), np.float32))[0, 0] == 60
            model.close()
            os._exit(0 if ok else 1)
        thread.join()
        deadline = time.monotonic() + 20
        while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, 9)
                sys.exit("the child hangs")
            time.sleep(0.01)
        assert done[1] == 0, done
        assert model(slow)[0, 0] == -60
    """
    run_script(script, str(build_library()))


def test_only_numpy_is_imported(build_library: BuildLibrary) -> None:
    script = """
        import sys
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition('.')[0] in {'llvmlite', 'onnx', 'networkx', 'google', 'PIL', 'safetensors',
                                              'click', 'rich', 'platformdirs'}:
                    raise ImportError(name)
        sys.meta_path.insert(0, Refuse())
        import numpy as np
        import sqzc
        model = sqzc.load(sys.argv[1])
        assert model(np.ones((1, 3, 4, 5), np.float32))[0, 0] == 60
        others = [name for name in sys.modules if name.startswith('sqzc.')
                  and not name.startswith(('sqzc.runtime', 'sqzc.diagnostics'))]
        assert not others, others
        try:
            model.classify('x.jpg')
        except sqzc.SqzcError as error:
            assert 'pip install pillow' in str(error), error
        else:
            sys.exit('no error without Pillow')
    """
    run_script(script, str(build_library()))
