"""The rounding error of fast convolutions, estimated from a layer's own weights.

The estimates are statistical, not worst cases: roundings are taken as independent, with the mean square that rounding
to nearest has when significands are spread as 1/x (N. Higham and T. Mary, A New Approach to Probabilistic Rounding
Error Analysis, 2019, for the model), and inputs as independent with a mean square of one. To first order the mean
square error of a bilinear algorithm is then a sum over its products: each is as large as the norms of its row of B^T
and of its transformed weights, is rounded once for every term of its sum and every step of the transforms, and enters
results by the squares of A^T (B. Barabasz, A. Anderson, K. Soodhalter and D. Gregg, Error Analysis and Improving the
Accuracy of Winograd Convolution for Deep Neural Networks, 2020, have the norms). Worst cases grow with the length of a
sum and not with its root, and would refuse every network.

Error counts in proportion to a layer's results, and how large these are depends on inputs that nobody has seen. So it
must be small beside the results for three kinds of input, each of which hides what large weights do:

scattered   the inputs under the larger half of the weights are zero, as behind a ReLU
smooth      all pixels of a channel are equal, but channels differ
flat        all inputs are equal

A direct convolution is exact where the inputs of large weights are zero or the sums of all large terms cancel at once.
Fast ones are not, because they round weights and inputs first and mix neighbouring results.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.backends.llvm.algebra import Numbers
from sqzc.backends.llvm.winograd_math import FORMS, Form, Transform

Rows = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

BUDGET = 5e-5
"""The largest error that is allowed, as a share of a layer's results, root mean square.

Weights drawn at random for 2048 channels come to 3.3e-5 with F(4,3); those of trained networks to less than 2e-5.
"""

# Root mean square of the relative rounding error: a unit in the last place spans 2^-23 .. 2^-24 of a number.
ROUNDING = float(np.sqrt(0.375 / np.log(2) / 3) * 2.0**-24)
# Weights beyond these magnitudes might leave float32's range inside the transforms, whatever the inputs are.
LEAST, LARGEST = 2.0**-90, 2.0**90
# The share of output channels that must keep the budget for themselves; the few others may be all but dead.
CHANNELS = 0.9


def matrix(transform: Transform, size: int) -> Matrix:
    """The matrix of a one-dimensional transform of `size` samples."""
    return np.array(transform(Numbers(), list(np.eye(size))), np.float64)


def winograd_error(w: npt.NDArray[Any], m: int) -> float:
    """The error of F(m x m, 3 x 3) for weights (oc, ic, 3, 3), as a share of the results; infinite beyond the range."""
    return share(winograd_mean_squares(w, m), w) if in_range(w) else float("inf")


def winograd_mean_squares(w: npt.NDArray[Any], m: int) -> Rows:
    """Mean square errors of the output channels in units of ROUNDING."""
    oc, ic = w.shape[:2]
    products = w.reshape(oc * ic, 9).astype(np.float64) @ _weighted_filter(m)
    sizes: Rows = np.einsum("ij,ij->i", products, products).reshape(oc, ic).sum(1)
    errors: Rows = sizes * ((ic + 1) / 2 + _transform_steps(FORMS[m]))
    return errors


@functools.cache
def _weighted_filter(m: int) -> Matrix:
    """What filters are multiplied by so that their squares are the mean squares of their products in the mean output.

    G (x) G with a weight for each product; the triangle of its QR factors gives the same norms with fewer columns.
    """
    form = FORMS[m]
    data, output = matrix(form.data, form.size), matrix(form.output, form.size)
    weight = np.sqrt((data**2).sum(1) * (output**2).mean(0))
    g = matrix(form.filter, 3) * weight[:, None]
    triangle: Matrix = np.linalg.qr(np.kron(g, g))[1]
    return triangle.T


def _transform_steps(form: Form) -> float:
    """How often data, filter and result of one product are rounded in both dimensions of their transforms."""
    return 2 * (form.data_ops + form.filter_ops) / form.size + 2 * form.output_ops / form.m


def in_range(w: npt.NDArray[Any]) -> bool:
    """Whether sums and products of the weights stay normal numbers; no weights at all are."""
    largest = float(np.abs(w).max(initial=0.0))
    return largest == 0 or LEAST <= largest <= LARGEST


def share(errors: Rows, w: npt.NDArray[Any]) -> float:
    """Errors as a share of the results, root mean square, for the kind of input with the smallest results.

    `errors` are mean square errors of the output channels in units of ROUNDING, `w` the weights (oc, ic, ...). The
    larger of the share over the whole layer, and over most of its channels.
    """
    oc, ic = w.shape[:2]
    sums = w.reshape(oc, ic, -1).sum(2, dtype=np.float64)
    scattered = _smaller_half(w.reshape(oc, -1))
    smooth, flat = (sums**2).sum(), (sums.sum(1) ** 2).sum()
    layer = _share(errors.sum(), min(scattered.sum(), smooth, flat))
    channels = sorted(map(_share, errors, scattered))
    return ROUNDING * max(layer, channels[int(CHANNELS * (oc - 1))])


def _smaller_half(w: npt.NDArray[Any]) -> Rows:
    """Of each row: the sum of squares of the smaller half of all weights that are not zero."""
    magnitudes = np.sort(np.abs(w), axis=1).astype(np.float64)
    zeros = (magnitudes == 0).sum(1)
    count = zeros + -(-(w.shape[1] - zeros) // 2)
    magnitudes[np.arange(w.shape[1]) >= count[:, None]] = 0
    return np.asarray(np.einsum("ij,ij->i", magnitudes, magnitudes))


def _share(error: float, size: float) -> float:
    """The root of error / size; nothing added to nothing is nothing."""
    if error <= 0:
        return 0.0
    return float(np.sqrt(error / size)) if size > 0 else float("inf")
