"""Loading and running compiled models: numpy, ctypes and the standard library, and Pillow where pictures are decoded.

Nothing of the compiler is imported here, so that a program which only runs models needs none of its dependencies.
"""

from sqzc.runtime.model import Model, load
from sqzc.runtime.tensor import InputTypeError, InputValueError, TensorInfo

__all__ = ["InputTypeError", "InputValueError", "Model", "TensorInfo", "load"]
