"""The rounding error of Strassen's form of a 1 x 1 convolution, estimated; `error_bounds` has the model.

A product's operands are sums of quarters of the weights and of the image, so that large weights reach, and round,
results of other output channels and of other pixels. N. Higham (Accuracy and Stability of Numerical Algorithms, 2002,
chapter 23) has the worst case, in which each level of Winograd's form multiplies the error by up to 18.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.backends.llvm.algebra import Numbers
from sqzc.backends.llvm.error_bounds import Rows, in_range, share
from sqzc.backends.llvm.strassen_math import Multiply, Sum, left_operands, part_indices, recombination, right_operands

# By part of the weights and part of the image, how often their product is in a sum.
Terms = npt.NDArray[np.float64]


def strassen_error(w: npt.NDArray[Any], levels: int, lanes: int) -> float:
    """The error of `levels` of halves for weights (oc, ic, 1, 1), as a share of the results; infinite beyond the range.

    Channels are divided in blocks of `lanes`.
    """
    return share(strassen_mean_squares(w, levels, lanes), w) if in_range(w) else float("inf")


def strassen_mean_squares(w: npt.NDArray[Any], levels: int, lanes: int) -> Rows:
    """Mean square errors of the output channels in units of ROUNDING."""
    oc, ic = w.shape[:2]
    parts = 2**levels
    rows, columns = (-(-size // (lanes * parts)) * lanes for size in (oc, ic))
    whole = np.zeros((parts * rows, parts * columns))
    whole[:oc, :ic] = w.reshape(oc, ic)
    places = list(part_indices(levels))
    weights = np.stack([whole[i * rows :, j * columns :][:rows, :columns] for i, j in places], axis=1)
    # Inner products of the parts' rows, from which the mean square of any sum of products follows.
    inner = weights @ weights.transpose(0, 2, 1)

    def size(terms: Terms) -> Rows:
        return np.asarray(np.einsum("iab,ab->i", inner, terms @ terms.T))

    units = list(np.eye(4**levels))
    signs = list(zip(left_operands(Numbers(), units), right_operands(Numbers(), units), strict=True))
    nothing = np.zeros((4**levels, 4**levels))
    slots: dict[int | None, tuple[Terms, Rows]] = {None: (nothing, np.zeros(rows))}
    for action in recombination(levels)[0]:
        if isinstance(action, Multiply):
            before, error = slots[action.source]
            product = np.outer(*signs[action.product])
            # The sum goes on from what it is added to; operands are rounded once for every sum in them.
            rounded = columns * (size(before) + size(before + product)) / 2
            operands = sum(np.count_nonzero(sign) - 1 for sign in signs[action.product]) * size(product)
            slots[action.target] = before + product, error + rounded + operands
        elif isinstance(action, Sum):
            terms, error = (np.sum([slots[k][which] for k in action.sources], axis=0) for which in (0, 1))
            slots[action.target] = terms, error + (len(action.sources) - 1) * size(terms)
    errors = np.zeros((parts, rows))
    for number, (i, _) in enumerate(places):
        errors[i] += slots[number][1] / parts
    return errors.ravel()[:oc]
