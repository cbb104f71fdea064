"""Every registered operator type is lifted and evaluated at least once, against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sqzc.frontends.caffe2.lifts import table

RNG = np.random.default_rng(3)
A = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
B = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
P = (RNG.random((2, 3, 4, 5)) + 0.5).astype(np.float32)
U = (RNG.random((2, 3)) * 0.8 + 0.1).astype(np.float32)
M, N = RNG.standard_normal((3, 4)).astype(np.float32), RNG.standard_normal((4, 5)).astype(np.float32)
C = (RNG.random(3) + 0.5).astype(np.float32)
D = RNG.standard_normal(3).astype(np.float32)
T, F = np.array([True, True, False, False]), np.array([True, False, True, False])


def per_channel(v):
    return v.reshape(1, 3, 1, 1)


def erf(x):
    return np.vectorize(math.erf)(x).astype(np.float32)


def normal(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def conv_1x1(x, w):
    return np.einsum("nc...,mc->nm...", x, w.reshape(w.shape[:2]))


W1 = RNG.standard_normal((4, 3)).astype(np.float32)
UNARY = {
    "Abs": np.abs,
    "Atan": np.arctan,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Cube": lambda x: x**3,
    "Elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "Erf": erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "LeakyRelu": lambda x: np.where(x >= 0, x, 0.01 * x),
    "Negative": np.negative,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0),
    "ReluN": lambda x: np.clip(x, 0, 6),
    "Round": np.round,
    "Selu": lambda x: 1.0507010 * np.where(x > 0, x, 1.6732632 * (np.exp(x) - 1)),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqr": np.square,
    "Swish": lambda x: x / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Clip": lambda x: x,
    **dict.fromkeys(
        "Alias Copy CopyCPUToGPU CopyFromCPUInput CopyGPUToCPU CopyCPUToMKL CopyMKLToCPU EnsureCPUOutput EnsureDense "
        "EnforceFinite Print ScaleGradient StopGradient".split(),
        lambda x: x,
    ),
    "FlattenToVec": np.ravel,
    "Flatten": lambda x: x.reshape(2, -1),
    "Shape": lambda x: np.int64(x.shape),
    "Size": lambda x: np.int64(x.size),
    "NCHW2NHWC": lambda x: x.transpose(0, 2, 3, 1),
    "NHWC2NCHW": lambda x: x.transpose(0, 3, 1, 2),
    "Transpose": lambda x: x.T,
    "SumElements": np.sum,
    "SumSqrElements": lambda x: np.sum(x * x),
    "AveragedLoss": np.mean,
    **{f"Reduce{k}": lambda x, f=f: f(x, axis=None, keepdims=True) for k, f in
       {"Sum": np.sum, "Mean": np.mean, "Max": np.max, "Min": np.min}.items()},
    "ReduceL1": lambda x: np.abs(x).sum(keepdims=True),
    "ReduceL2": lambda x: np.sqrt((x * x).sum(keepdims=True)),
    **{f"Reduce{end}{k}": lambda x, f=f, axis=axis: f(x, axis=axis) for end, axis in (("Back", -1), ("Front", 0))
       for k, f in {"Sum": np.sum, "Mean": np.mean, "Max": np.max}.items()},
    "ArgMax": lambda x: x.argmax(-1)[..., None],
    "ArgMin": lambda x: x.argmin(-1)[..., None],
    "Softmax": lambda x: np.exp(x) / np.exp(x).sum((1, 2, 3), keepdims=True),
    "Normalize": lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)),
    "NormalizeL1": lambda x: x / np.abs(x).sum(-1, keepdims=True),
    "LayerNorm": lambda x: normal(x, (1, 2, 3)),
    "UpsampleNearest": lambda x: x.repeat(2, 2).repeat(2, 3),
    "ResizeNearest": lambda x: x,
    "UpsampleBilinear": lambda x: x,
    "PadImage": lambda x: x,
    "ConstantFill": np.zeros_like,
}  # fmt: skip
BINARY = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "EQ": np.equal,
    "NE": np.not_equal,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "Sum": np.add,
    "Mean": lambda a, b: (a + b) / 2,
    "Max": np.maximum,
    "Min": np.minimum,
    "CopyOnDeviceLike": lambda a, b: a,
    "ResizeLike": lambda a, b: a,
    "DotProduct": lambda a, b: (a * b).sum((1, 2, 3)),
    "Concat": lambda a, b: np.concatenate([a, b], 1),
    "DepthConcat": lambda a, b: np.concatenate([a, b], 1),
}
POOLS = {"kernel": 1}
# (inputs, parameters, arguments, wanted)
OTHER = {
    "Acos": ({"X": U}, {}, {}, np.arccos(U)),
    "Asin": ({"X": U}, {}, {}, np.arcsin(U)),
    "Tan": ({"X": U}, {}, {}, np.tan(U)),
    "Log": ({"X": P}, {}, {}, np.log(P)),
    "Sqrt": ({"X": P}, {}, {}, np.sqrt(P)),
    "Rsqrt": ({"X": P}, {}, {}, 1 / np.sqrt(P)),
    "Logit": ({"X": U}, {}, {}, np.log(U / (1 - U))),
    "Pow": ({"X": P, "Z": A}, {}, {}, P**A),
    "Scale": ({"X": A}, {}, {"scale": 0.5}, A / 2),
    "ThresholdedRelu": ({"X": A}, {}, {"alpha": 0.5}, np.where(A > 0.5, A, 0)),
    "ReplaceNaN": ({"X": np.float32([1, np.nan])}, {}, {"value": 3.0}, np.float32([1, 3])),
    "Not": ({"X": T}, {}, {}, ~T),
    "And": ({"X": T, "Z": F}, {}, {}, T & F),
    "Or": ({"X": T, "Z": F}, {}, {}, T | F),
    "Xor": ({"X": T, "Z": F}, {}, {}, T ^ F),
    "Where": ({"c": T, "X": np.float32([1, 2, 3, 4]), "Z": np.float32([5, 6, 7, 8])}, {}, {}, np.float32([1, 2, 7, 8])),
    "SumInt": ({"X": np.int32([1, 2]), "Z": np.int32([3, 4])}, {}, {}, np.int32([4, 6])),
    "WeightedSum": ({"X": A, "u": C[:1], "Z": B, "v": D[:1]}, {}, {}, A * C[0] + B * D[0]),
    "Dropout": ({"X": A}, {}, {"is_test": 1}, A),
    "Cast": ({"X": A}, {}, {"to": "INT32"}, A.astype(np.int32)),
    "HalfToFloat": ({"X": A.astype(np.float16)}, {}, {}, A.astype(np.float16).astype(np.float32)),
    "FloatToHalf": ({"X": A}, {}, {}, A.astype(np.float16)),
    "PRelu": ({"X": A}, {"s": C}, {}, np.where(A >= 0, A, A * per_channel(C))),
    "AffineChannel": ({"X": A}, {"s": C, "b": D}, {}, A * per_channel(C) + per_channel(D)),
    "SpatialBN": ({"X": A}, {"s": C, "b": D, "m": D, "v": C}, {"is_test": 1},
                  (A - per_channel(D)) / np.sqrt(per_channel(C) + 1e-5) * per_channel(C) + per_channel(D)),
    "InstanceNorm": ({"X": A}, {"s": C, "b": D}, {}, normal(A, (2, 3)) * per_channel(C) + per_channel(D)),
    "GroupNorm": ({"X": A}, {"s": C, "b": D}, {"group": 1}, normal(A, (1, 2, 3)) * per_channel(C) + per_channel(D)),
    "LRN": ({"X": A}, {}, {"size": 1, "alpha": 0.5, "beta": 0.5, "bias": 2.0}, A / np.sqrt(2 + 0.5 * A * A)),
    "FC": ({"X": M}, {"w": N.T.copy(), "b": np.ones(5, np.float32)}, {}, M @ N + 1),
    "FCTransposed": ({"X": M}, {"w": N, "b": np.ones(5, np.float32)}, {}, M @ N + 1),
    "MatMul": ({"X": M, "Z": N}, {}, {}, M @ N),
    "BatchMatMul": ({"X": A, "Z": B}, {}, {"trans_b": 1}, A @ B.swapaxes(-1, -2)),
    "ElementwiseLinear": ({"X": M.T.copy()}, {"w": C, "b": D}, {}, M.T * C + D),
    "Conv": ({"X": A}, {"w": W1.reshape(4, 3, 1, 1)}, POOLS, conv_1x1(A, W1)),
    "Conv2D": ({"X": A}, {"w": W1.reshape(4, 3, 1, 1)}, POOLS, conv_1x1(A, W1)),
    "ConvRelu": ({"X": A}, {"w": W1.reshape(4, 3, 1, 1)}, POOLS, np.maximum(conv_1x1(A, W1), 0)),
    "Conv1D": ({"X": A[:, :, 0]}, {"w": W1.reshape(4, 3, 1)}, {"kernels": [1]}, conv_1x1(A[:, :, 0], W1)),
    "ConvTranspose": ({"X": A}, {"w": W1.T.reshape(3, 4, 1, 1).copy()}, POOLS, conv_1x1(A, W1)),
    **{f"{kind}Pool{end}": ({"X": A}, {}, POOLS, A) for kind in ("Max", "Average") for end in ("", "2D")},
    **{f"{kind}Pool1D": ({"X": A[:, :, 0]}, {}, {"kernels": [1]}, A[:, :, 0]) for kind in ("Max", "Average")},
    "Split": ({"X": A}, {}, {"axis": 3, "split": [5]}, A),
    "DepthSplit": ({"X": A}, {}, {}, A),
    "Slice": ({"X": A}, {}, {"starts": [1], "ends": [2]}, A[1:]),
    "Reshape": ({"X": A}, {}, {"shape": [-1, 5]}, A.reshape(-1, 5)),
    "Squeeze": ({"X": A[:1]}, {}, {"dims": [0]}, A[0]),
    "ExpandDims": ({"X": M}, {}, {"dims": [2, 0]}, M[None, :, None]),
    "ChannelShuffle": ({"X": np.concatenate([A, B], 1)}, {}, {"group": 2}, np.stack([A, B], 2).reshape(2, 6, 4, 5)),
    "Tile": ({"X": A}, {}, {"tiles": 3, "axis": 1}, np.tile(A, (1, 3, 1, 1))),
    "Expand": ({"X": C}, {}, {"shape": [2, 1]}, np.stack([C, C])),
    "Gather": ({"X": A}, {"i": np.int32([1, 0, 1])}, {}, A[[1, 0, 1]]),
    "TopK": ({"X": M}, {}, {"k": 1}, M.max(1, keepdims=True)),
}  # fmt: skip
# Types that make one array from arguments, need a different kind of test, or are refused on purpose.
ELSEWHERE = {
    "Free": "test_caffe2_names",
    "Conv3D": "test_caffe2_windows",
    "MaxPool3D": "test_caffe2_windows",
    "AveragePool3D": "test_caffe2_windows",
}
FILLS = {
    "GivenTensorFill": np.float32,
    "GivenTensorDoubleFill": np.float64,
    "GivenTensorIntFill": np.int32,
    "GivenTensorInt16Fill": np.int16,
    "GivenTensorInt64Fill": np.int64,
    "GivenTensorBoolFill": np.bool_,
}
CASES = {
    **{name: ({"X": A}, {}, {}, want(A)) for name, want in UNARY.items()},
    **{name: ({"X": A, "Z": B}, {}, {}, want(A, B)) for name, want in BINARY.items()},
    **OTHER,
}


def test_every_type_has_a_case():
    assert sorted(table) == sorted({*CASES, *ELSEWHERE, *FILLS})


@pytest.mark.parametrize("type_", sorted(CASES))
def test_operator(c2, type_):
    inputs, params, args, want = CASES[type_]
    outputs = "Y other" if type_ == "TopK" else "Y"
    got = c2.run_op(type_, inputs, params, outputs=outputs, **args)
    got = got[0] if type_ == "TopK" else got
    assert got.shape == np.shape(want)
    assert got.dtype.kind == np.asarray(want).dtype.kind
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("type_", sorted(name for name, case in CASES.items() if case[1]))
def test_operator_on_fed_parameters(c2, type_):
    inputs, params, args, want = CASES[type_]
    got = c2.run_op(type_, {**inputs, **params}, **args)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("type_", sorted(FILLS))
def test_fill(c2, type_):
    dtype = np.dtype(FILLS[type_])
    values = [0.5, -2.0] if dtype.kind == "f" else [1, 0]
    net = c2.net([c2.op(type_, "", "Y", shape=[2, 1], values=values)], "", "Y")
    got = c2.run(net)["Y"]
    assert (got.dtype, got.tolist()) == (dtype, np.asarray(values).astype(dtype).reshape(2, 1).tolist())
