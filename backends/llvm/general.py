"""The families that together run every op in row-major layout; `library` tries the special ones first."""

from __future__ import annotations

from sqzc.backends.llvm.family import Family
from sqzc.backends.llvm.kernels.broadcast import BinaryMap, CompareMap, WhereMap
from sqzc.backends.llvm.kernels.channelwise import BatchNormMap, PreluMap
from sqzc.backends.llvm.kernels.conv_grouped import ConvGrouped
from sqzc.backends.llvm.kernels.conv_rows import ConvRows
from sqzc.backends.llvm.kernels.conv_transpose import ConvTransposeRows
from sqzc.backends.llvm.kernels.depthwise import Depthwise
from sqzc.backends.llvm.kernels.elementwise import CastMap, UnaryMap
from sqzc.backends.llvm.kernels.gather import GatherRows
from sqzc.backends.llvm.kernels.linear import LinearPacked
from sqzc.backends.llvm.kernels.matmul import MatrixProduct
from sqzc.backends.llvm.kernels.move import (
    ConcatCopy,
    CopyFlat,
    ExpandCopy,
    PadConstant,
    RelayoutCopy,
    SliceCopy,
    TransposeCopy,
)
from sqzc.backends.llvm.kernels.norm import InstanceNormPlanes, LocalResponse, SoftmaxAxes
from sqzc.backends.llvm.kernels.plain_pool import AvgPoolBlocks, AvgPoolRows, MaxPoolBlocks, MaxPoolRows
from sqzc.backends.llvm.kernels.reduce import ReduceAxes
from sqzc.backends.llvm.kernels.resize import ResizeLinear
from sqzc.backends.llvm.kernels.select_ops import ArgExtreme, TopKRows
from sqzc.backends.llvm.kernels.subsample import SubsampleRows
from sqzc.backends.llvm.kernels.take import TableTake
from sqzc.backends.llvm.kernels.wide import WideMap, WidePower

GENERAL: tuple[Family, ...] = (
    UnaryMap(),
    CastMap(),
    WideMap(),
    WidePower(),
    BinaryMap(),
    CompareMap(),
    WhereMap(),
    BatchNormMap(),
    PreluMap(),
    CopyFlat(),
    RelayoutCopy(),
    TransposeCopy(),
    SliceCopy(),
    ExpandCopy(),
    PadConstant(),
    ConcatCopy(),
    TableTake(),
    ResizeLinear(),
    GatherRows(),
    ReduceAxes(),
    ArgExtreme(),
    TopKRows(),
    InstanceNormPlanes(),
    LocalResponse(),
    SoftmaxAxes(),
    Depthwise(),
    ConvGrouped(),
    ConvRows(),
    ConvTransposeRows(),
    SubsampleRows(),
    MaxPoolRows(),
    AvgPoolRows(),
    MaxPoolBlocks(),
    AvgPoolBlocks(),
    LinearPacked(),
    MatrixProduct(),
)
