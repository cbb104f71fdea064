"""What fast convolutions add to the rounding error of a direct one, estimated from a layer's own weights.

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

scattered   the inputs under the larger half of the weights are zero, as behind a ReLU (in a direct convolution large
            weights then do no harm, in a fast one they do: its sums mix neighbouring outputs)
smooth      all pixels of a channel are equal, but channels differ
flat        all inputs are equal
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.backends.llvm.winograd_math import FORMS, Form, Transform

Rows = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

BUDGET = 5e-5
"""The most that an algorithm may add, as a share of a layer's results, root mean square.

Weights drawn at random for 2048 channels come to 3.3e-5 with F(4,3); those of trained networks to less than 2e-5.
"""

# Root mean square of the relative rounding error: a unit in the last place spans 2^-23 .. 2^-24 of a number.
ROUNDING = float(np.sqrt(0.375 / np.log(2) / 3) * 2.0**-24)
# Weights beyond these magnitudes might leave float32's range inside the transforms, whatever the inputs are.
LEAST, LARGEST = 2.0**-90, 2.0**90
# The share of output channels that must keep the budget for themselves; the few others may be all but dead.
CHANNELS = 0.9


class Numbers:
    """Plain arithmetic as a number system of `winograd_math` and `strassen_math`."""

    def add(self, a: Any, c: Any) -> Any:
        """a + c."""
        return a + c

    def sub(self, a: Any, c: Any) -> Any:
        """a - c."""
        return a - c

    def scale(self, a: Any, factor: float) -> Any:
        """a * factor."""
        return a * factor

    def muladd(self, a: Any, factor: float, c: Any) -> Any:
        """a * factor + c."""
        return a * factor + c


def matrix(transform: Transform, size: int) -> Matrix:
    """The matrix of a one-dimensional transform of `size` samples."""
    return np.array(transform(Numbers(), list(np.eye(size))), np.float64)


def winograd_error(w: npt.NDArray[Any], m: int) -> float:
    """What F(m x m, 3 x 3) adds for weights (oc, ic, 3, 3), as a share of the results; infinite beyond the range."""
    if not in_range(w):
        return float("inf")
    oc, ic = w.shape[:2]
    form = FORMS[m]
    products = w.reshape(oc * ic, 9).astype(np.float64) @ _weighted_filter(m)
    mean_squares = np.einsum("ij,ij->i", products, products).reshape(oc, ic).sum(1)
    return added(mean_squares * ((ic + 1) / 2 + _transform_steps(form)), w)


@functools.cache
def _weighted_filter(m: int) -> Matrix:
    """What filters are multiplied by so that their squares are the mean squares of their products in the mean output.

    G (x) G with a weight for each product; the triangle of its QR factors gives the same norms with fewer columns.
    """
    form = FORMS[m]
    data, output = matrix(form.data, form.size), matrix(form.output, form.size)
    weight = np.sqrt((data**2).sum(1) * (output**2).mean(0))
    g = matrix(form.filter, 3) * weight[:, None]
    _, triangle = np.linalg.qr(np.kron(g, g))
    return triangle.T


def _transform_steps(form: Form) -> float:
    """How often data, filter and result of one product are rounded in both dimensions of their transforms."""
    return 2 * (form.data_ops + form.filter_ops) / form.size + 2 * form.output_ops / form.m


def in_range(w: npt.NDArray[Any]) -> bool:
    """Whether sums and products of the weights stay normal numbers; no weights at all are."""
    largest = float(np.abs(w).max(initial=0.0))
    return largest == 0 or LEAST <= largest <= LARGEST


def added(errors: Rows, w: npt.NDArray[Any]) -> float:
    """By how much errors exceed those of a direct convolution, as a share of the results.

    `errors` are mean square errors of the output channels in units of ROUNDING, `w` the weights (oc, ic, ...). The
    largest share of any kind of input, over the layer and over most channels.
    """
    oc, ic = w.shape[:2]
    taps = w.reshape(oc, ic, -1).astype(np.float64)
    sums = taps.sum(2)
    energy, scattered = _energies(w.reshape(oc, -1))
    smooth, flat = (sums**2).sum(1), sums.sum(1) ** 2
    rounded = (taps[0].size + 1) / 2
    shares = [
        _share(errors.sum() - rounded * lost.sum(), size.sum())
        for size, lost in ((scattered, scattered), (smooth, energy), (flat, energy))
    ]
    channels = sorted(map(_share, errors - rounded * scattered, scattered))
    return ROUNDING * max(*shares, channels[int(CHANNELS * (oc - 1))])


def _energies(w: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    """Sums of squares of each row: of all weights, and of the smaller half of those that are not zero."""
    magnitudes = np.sort(np.abs(w), axis=1).astype(np.float64)
    zeros = (magnitudes == 0).sum(1)
    squares = np.square(magnitudes, out=magnitudes)
    energy = squares.sum(1)
    count = zeros + -(-(w.shape[1] - zeros) // 2)
    squares[np.arange(w.shape[1]) >= count[:, None]] = 0
    return energy, squares.sum(1)


def _share(error: float, size: float) -> float:
    """The root of error / size; nothing added to nothing is nothing."""
    if error <= 0:
        return 0.0
    return float(np.sqrt(error / size)) if size > 0 else float("inf")
