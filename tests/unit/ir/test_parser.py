"""Graph text to graphs: the whole grammar, and every refusal with its place."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.diagnostics import ParseError, SqzcError, VerifyError
from sqzc.ir import DType, Layout, TensorType
from sqzc.ir.constant import Constant
from sqzc.ir.cursor import Cursor
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Conv2d, MaxPool2d, Rounding
from sqzc.ir.parser import parse_graph
from sqzc.ir.types import f32

W = np.linspace(-1, 1, 4 * 3 * 9, dtype=np.float32).reshape(4, 3, 3, 3)

HEAD = """# comments run to the end of the line
graph @head(%image: f32[1,3,27,27] @"data" @"in", %"odd name": i64[2]) { // these too
  meta "mean" = [104.0, 117.0, {"a": "#"}]
  meta "none" = null
  const %w1 = @conv1_w : f32[4,3,3,3]
  const %b1 = @bias [1, -2.5, inf, nan] : f32[4] @"b"
  const %k = [3, -1] : i64[2]
  %c1 = conv2d(%image, %w1, %b1) {stride=2x2, act=clip(0.0, 6.0)} : f32[1,4,13,13]:nchw8c @"conv1" @"relu1"
  %p1 = max_pool2d(%c1) { kernel = 3x3, stride=2x2,
                          rounding=ceil } : f32[1,4,6,6]:nchw8c
  %r = relayout(%p1) : f32[1,4,6,6]
  %f = reshape(%r) {shape=[4, 36]} : f32[4,36]
  %top, %where = topk(%f) {k=1} : f32[4,1] @"top", i64[4,1]
  %sum = add(%k, %"odd name") : i64[2]
  yield %top, %where as "the index", %sum as "s",
}
"""


def test_everything_a_graph_can_say() -> None:
    g = parse_graph(HEAD, {"conv1_w": W})
    assert g.name == "head"
    assert [(v.name, str(v.type), v.source) for v in g.inputs] == [
        ("image", "f32[1,3,27,27]", ("data", "in")),
        ("odd name", "i64[2]", ("odd name",)),
    ]
    assert g.meta == {"mean": [104.0, 117.0, {"a": "#"}], "none": None}
    w, b, k = g.constants
    assert (w.name, w.type) == ("w1", f32(4, 3, 3, 3))
    assert w.constant is not None
    assert w.constant.symbol == "conv1_w"
    assert w.data.tobytes() == W.tobytes()
    assert b.constant is not None
    assert (b.constant.symbol, b.source) == ("bias", ("b",))
    np.testing.assert_array_equal(b.data, np.array([1, -2.5, np.inf, np.nan], np.float32))
    assert k.data.tolist() == [3, -1]
    assert k.type == TensorType(DType.I64, (2,))
    conv, pool, *_, topk, _ = g.nodes
    assert conv.op == Conv2d(stride=(2, 2), act=Activation("clip", (0.0, 6.0)))
    assert conv.output.type == f32(1, 4, 13, 13).with_layout(Layout(8))
    assert conv.output.source == ("conv1", "relu1")
    assert pool.op == MaxPool2d(kernel=(3, 3), stride=(2, 2), rounding=Rounding.CEIL)
    assert [(v.name, v.source) for v in topk.outputs] == [("top", ("top",)), ("where", ())]
    assert [(name, value.name) for name, value in g.outputs] == [("top", "top"), ("the index", "where"), ("s", "sum")]


def test_smallest_graph() -> None:
    g = parse_graph('graph@""(){yield}')
    assert (g.name, g.inputs, g.nodes, g.outputs) == ("", [], [], [])


@pytest.mark.parametrize(
    "name", ["nan", "inf", "inf.1", "x", "f32", "yield", "const", "sha", "1", "%", 'a"b', "ü", "a b"]
)
def test_any_name_is_a_name(name: str) -> None:
    quoted = '"' + name.replace('"', '\\"') + '"'
    text = f"graph @{quoted}(%{quoted}: f32[]) {{ const %c = @{quoted} [1] : f32[] yield %{quoted} as {quoted} }}"
    g = parse_graph(text)
    assert (g.name, g.inputs[0].name, g.outputs[0][0]) == (name, name, name)
    assert g.constants[0].constant is not None
    assert g.constants[0].constant.symbol == name


@pytest.mark.parametrize(
    ("dtype", "words", "values"),
    [
        ("f32", "1, 2.5e-3, -inf, +inf", [1, 2.5e-3, -np.inf, np.inf]),
        ("f16", "0.1, 65504.0, 6e-8, -0.0", [np.float16(0.1), 65504, np.float16(6e-8), -0.0]),
        ("f64", "1e300, 5e-324, 0.1, 3", [1e300, 5e-324, 0.1, 3]),
        ("i8", "127, -128, 0, 1", [127, -128, 0, 1]),
        ("u8", "255, 0, 1, 2", [255, 0, 1, 2]),
        ("i64", "9223372036854775807, -9223372036854775808, 0, 1", [2**63 - 1, -(2**63), 0, 1]),
        ("bool", "true, false, true, true", [True, False, True, True]),
    ],
)
def test_inline_constants(dtype: str, words: str, values: list[float]) -> None:
    g = parse_graph(f"graph @g() {{ const %c = [{words}] : {dtype}[2,2] yield %c }}")
    wanted = np.array(values, DType(dtype).numpy).reshape(2, 2)
    assert g.constants[0].data.dtype == wanted.dtype
    assert g.constants[0].data.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        ("f32", "1e39"),
        ("f32", "true"),
        ("f32", '"1"'),
        ("f32", "infinity"),
        ("f16", "65520"),
        ("f64", "1e309"),
        ("f64", "1x2"),
        ("i8", "128"),
        ("u8", "-1"),
        ("i32", "1.0"),
        ("i64", "9223372036854775808"),
        ("bool", "1"),
    ],
)
def test_an_element_that_does_not_fit_its_type(dtype: str, word: str) -> None:
    with pytest.raises(ParseError, match=f"an element is no {dtype}") as caught:
        parse_graph(f"graph @g() {{ const %c = [{word}] : {dtype}[1] yield %c }}")
    assert "column 25" in str(caught.value.location)


# -- weights ----------------------------------------------------------------------------------------------------------


def stored(sha: str = "") -> str:
    return f"graph @g() {{ const %c = @w : f32[4,3,3,3]{' sha=' + sha if sha else ''} yield %c }}"


def test_weights_by_key_before_symbol() -> None:
    sha = Constant("w", W).sha
    wrong = np.zeros_like(W)
    g = parse_graph(stored(sha), {f"w#{sha}": W, "w": wrong})
    assert np.shares_memory(g.constants[0].data, W)
    asked: list[tuple[str, str]] = []

    def find(symbol: str, wanted: str) -> np.ndarray:
        asked.append((symbol, wanted))
        return W

    parse_graph(stored(sha), find)
    assert asked == [("w", sha)]


def test_hashes_of_digits_are_read_whole() -> None:
    sha = "1e5f0123456789e0"
    with pytest.raises(ParseError, match="another hash") as caught:
        parse_graph(stored(sha), {"w": W})
    assert (caught.value.expected, caught.value.got) == (sha, Constant("w", W).sha)


@pytest.mark.parametrize(
    ("weights", "message", "got"),
    [
        (None, "no data for @w", None),
        ({"v": W}, "no data for @w", None),
        ({"w": W[:1]}, "the data of @w is of another type", "float32[1, 3, 3, 3]"),
        ({"w": W.astype(np.float64)}, "the data of @w is of another type", "float64[4, 3, 3, 3]"),
        ({"w": W.astype(np.uint32)}, "the data of @w is of another type", "uint32[4, 3, 3, 3]"),
    ],
    ids=["none", "others", "shape", "dtype", "unknown dtype"],
)
def test_weights_that_do_not_fit(weights: dict[str, np.ndarray] | None, message: str, got: str | None) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        parse_graph(stored(), weights)
    assert caught.value.got == got
    assert "column 25" in str(caught.value.location)


# -- refusals ---------------------------------------------------------------------------------------------------------

GOOD = """graph @g(%x: f32[1,2,6,6], %y: f32[2]) {
  meta "a" = 1
  const %w = [1.0, 2.0] : f32[2]
  %m = max_pool2d(%x) {kernel=3x3, stride=2x2} : f32[1,2,2,2]
  %s = add(%y, %w) : f32[2] @"sum"
  %t, %i = topk(%s) {k=1} : f32[1], i64[1]
  yield %m as "m", %t
}
"""

# old text -> new text, message, where (line, column), a line of the rest
REFUSED: dict[str, tuple[str, str, tuple[int, int], str | None]] = {
    "graph @g": ("plan @g", "unexpected text", (1, 1), "expected: 'graph'"),
    "@g(": ("g(", "unexpected text", (1, 7), "expected: '@'"),
    "@g(%x": ("@(%x", "a name is missing", (1, 8), "got:      '('"),
    "%x: f32": ("%x f32", "unexpected text", (1, 13), "expected: ':'"),
    ": f32[1,2,6,6]": (": float[1,2,6,6]", "unknown element type 'float'", (1, 14), "expected: one of f32, f64, f16"),
    "[1,2,6,6], ": ("[1,2,6,6] ", "unexpected text", (1, 27), "expected: ','"),
    "[1,2,6,6],": ("[1,2,6,-6],", "a negative dimension in shape [1, 2, 6, -6]", (1, 14), None),
    "[1,2,6,6], %y": ("[1,2,6,a], %y", "a whole number is missing", (1, 24), "got:      'a'"),
    "6,6], %": ("6,6]:nchw0c, %", "unknown layout 'nchw0c'", (1, 14), "expected: nchw16c, nchw8c, nchw4c or none"),
    "%y: f32[2])": ("%y: f32[2]:nchw4c)", "layout nchw4c on shape [2]", (1, 32), "expected: rank 4"),
    "%y: f32[2]) ": ("%x: f32[2]) ", "%x is defined twice", (1, 28), None),
    "%y: ": ('%"": ', "an empty name", (1, 28), None),
    'meta "a" = 1': ("meta a = 1", "a quoted string is missing", (2, 8), "got:      'a'"),
    '"a" = 1': ('"a" = one', "not a JSON value", (2, 14), None),
    '"a" = 1\n': ('"a" = 1 // one\n', "not a JSON value", (2, 14), None),
    'meta "a" = 1\n': ('meta "a" = 1\n  meta "a" = 2\n', "meta 'a' stands twice", (3, 8), None),
    '"a"': (r'"\q"', "a string with a bad escape", (2, 8), None),
    "const %w": ("const %x", "%x is defined twice", (3, 9), None),
    "[1.0, 2.0]": ("[1.0]", "1 elements", (3, 14), "expected: 2 for f32[2]"),
    "[1.0,": ("[1.0", "unexpected text", (3, 19), "expected: ','"),
    "2.0]": ("2.0" + ", 1" * 15 + "]", "over 16 inline elements", (3, 68), "hint: larger constants live"),
    "%m = ": ("%x = ", "%x is defined twice", (4, 3), None),
    "max_pool2d": ("max_pool", "unknown op 'max_pool'", (4, 8), "hint: did you mean 'max_pool2d'?"),
    "2d(%x)": ("2d(%z)", "%z is not defined here", (4, 19), None),
    "2d(%x) ": ("2d(%m) ", "%m is not defined here", (4, 19), None),
    "2d(%x) {": ("2d(%x, %x) {", "max_pool2d: 2 operands", (4, 8), "expected: 1 to 1"),
    "kernel=3x3": ("kernels=3x3", "max_pool2d has no attribute 'kernels'", (4, 24), "hint: did you mean 'kernel'?"),
    "kernel=3x3, ": ("", "max_pool2d: attribute 'kernel' is missing", (4, 8), None),
    "kernel=": ("kernel ", "unexpected text", (4, 31), "expected: '='"),
    "stride=2x2": ("kernel=2x2", "attribute 'kernel' stands twice", (4, 36), None),
    "=2x2}": ("=2x2x2}", "max_pool2d: attribute 'stride' is (2, 2, 2)", (4, 8), "expected: a value of kind pair"),
    "e=2x2}": ("e=[2,2]}", "'[2,2]' is not a pair of integers", (4, 43), None),
    "3x3, ": ("3x3 ", "'3x3stride' is not a pair of integers", (4, 31), None),
    "stride=2x2}": ("rounding=up}", "unknown rounding 'up'", (4, 45), "expected: one of floor, ceil"),
    "2x2} : f32[1,2,2,2]": (
        "2x2} : f32[1,2,3,3]",
        "max_pool2d: result type",
        (4, 8),
        "expected: f32[1,2,2,2]",
    ),
    "add(%y, %w)": ("add(%y, %x)", "shapes [2] and [1, 2, 6, 6] do not broadcast", (5, 8), None),
    '@"sum"': ("@sum", "a quoted string is missing", (5, 30), "got:      'sum'"),
    "%t, %i =": ("%t, %t =", "%t is defined twice", (6, 7), None),
    ", i64[1]": ("", "2 results and 1 types", (6, 3), None),
    "%t, %i": ("%t", "1 results and 2 types", (6, 3), None),
    '%m as "m"': ('%q as "m"', "%q is not defined here", (7, 9), None),
    'as "m", %t': ('as "m", %t as "m"', "two outputs are called 'm'", (7, 20), None),
    'as "m", %t\n': ('as "m" %t\n', "unexpected text", (7, 19), "expected: '}'"),
    "%t\n}\n": ("%t\n", "unexpected text", (8, 1), "got:      end of text"),
    "\n}\n": ("\n}\n}", "text after the end of the graph", (9, 1), None),
    "  yield": ("  yields", "unexpected text", (7, 3), "got:      'yields'"),
}  # fmt: skip


def test_good_text_is_good() -> None:
    parse_graph(GOOD)


@pytest.mark.parametrize("old", REFUSED)
def test_refused(old: str) -> None:
    new, message, (line, column), rest = REFUSED[old]
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    with pytest.raises(ParseError) as caught:
        parse_graph(text, file="g.sqz")
    lines = str(caught.value).splitlines()
    shown = text.split("\n")[line - 1]
    assert lines[:4] == [
        f"error[PA01]: {message}",
        f"  --> g.sqz, line {line}, column {column}",
        f"      {shown}",
        f"      {' ' * (column - 1)}^",
    ]
    if rest is not None:
        assert any(known.startswith(f"  {rest}") for known in lines[4:]), lines


def test_hints_of_ops_survive() -> None:
    text = """graph @g(%x: f32[1,1,3,3]) {
      const %w = [1] : f32[1,1,1,1]
      %y = conv2d(%x, %w) {act=rleu} : f32[1,1,3,3]
      yield %y
    }"""
    with pytest.raises(ParseError, match="hint: did you mean 'relu'"):
        parse_graph(text)


def test_rules_that_no_op_sees_are_verify_errors() -> None:
    text = "graph @g(%x: f32[1,8,3,3]) { %y = relu(%x) : f32[1,8,3,3]:nchw8c yield %y }"
    with pytest.raises(VerifyError, match="relu takes and gives one layout") as caught:
        parse_graph(text, file="g.sqz")
    assert "@g" in str(caught.value.location)


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deep_json_is_no_crash(depth: int) -> None:
    text = f'graph @g() {{\n meta "a" = {"[" * depth}{"]" * depth}\n yield }}'
    if depth < 100:
        parse_graph(text)
        return
    with pytest.raises(ParseError, match="not a JSON value"):
        parse_graph(text)


def test_an_open_bracket_does_not_swallow_the_text() -> None:
    text = GOOD.replace("kernel=3x3", "kernel=[3,3")
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    assert caught.value.message == "'[3,3,stride' is not a pair of integers"


@pytest.mark.parametrize("at", range(0, len(HEAD), 7))
def test_truncated_text_is_an_error_of_the_users(at: int) -> None:
    with pytest.raises(SqzcError):
        parse_graph(HEAD[:at], {"conv1_w": W})


# -- the cursor -------------------------------------------------------------------------------------------------------


def test_cursor_looks_one_ahead() -> None:
    c = Cursor('a = "=" 3', "")
    assert (c.now.text, c.ahead.text) == ("a", "=")
    assert c.take().text == "a"
    assert c.accept("=")
    assert not c.accept("=")  # A quoted one is a string.
    assert c.string() == "="
    assert c.integer() == 3
    assert c.now.kind == c.ahead.kind == c.take().kind == c.take().kind == "end"
    assert not c.accept("end of text")


def test_cursor_reads_lists_of_a_known_length() -> None:
    assert Cursor("[1, -2,3]", "").integers(3) == (1, -2, 3)
    assert Cursor("[]", "").integers(0) == ()
    for text, message in (("[1,2]", "2 numbers"), ("[1,2,3,4]", "too many numbers"), ("1", "unexpected text")):
        with pytest.raises(ParseError, match=message):
            Cursor(text, "").integers(3)


@pytest.mark.parametrize("text", ["1.5", '"1"', "a", "inf", "1x2", "", "9" * 5000])
def test_cursor_knows_whole_numbers(text: str) -> None:
    with pytest.raises(ParseError, match="a whole number is missing"):
        Cursor(text, "").integer()


def test_cursor_finds_lines_by_newlines_alone() -> None:
    c = Cursor('# \u2028\n"a" = {"b": [1]}\r\nnext', "")
    assert c.string() == "a"
    c.expect("=")
    assert c.json() == {"b": [1]}
    assert c.name() == "next"
