"""The optimisation levels as data: each is the spec of a pipeline.

O0 does the least that backends need and never changes a number. O1 folds and fuses. O2 adds what pays for the time it
takes: algebra, memory layouts, concats without copies. O3 leaves the graph as O2 does; its extra choices (Winograd and
other algorithms) are made by the plan.
"""

from __future__ import annotations

from collections.abc import Mapping

_CLEANUP = "drop-inference-noops,fold-constants,forward-slices,cancel-transposes,drop-inference-noops"
# Batch norms go before means: an affine op between two convolutions belongs to the first, where it is always exact.
# Pads go before means, so that a mean below a padded convolution is seen as such.
_FOLD = "fold-batch-norm,fold-pad,fold-mean"
# Residuals go before activations: the activation of a residual block follows the sum.
_FUSE = "fuse-conv-add,fuse-conv-relu"
_ALGEBRA = "reassociate,common-subexpressions"

_LAYOUT = "assign-layout,subsample-pointwise,elide-concat"

_O2 = f"{_CLEANUP},{_ALGEBRA},{_FOLD},merge-affine,{_FUSE},dead-code,{_LAYOUT},dead-code"

PIPELINES: Mapping[str, str] = {
    "O0": "drop-inference-noops,dead-code",
    "O1": f"{_CLEANUP},common-subexpressions,{_FOLD},{_FUSE},dead-code",
    "O2": _O2,
    "O3": _O2,
}
