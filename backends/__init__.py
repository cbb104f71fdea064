"""Consumers of the graph IR: the numpy reference, the LLVM code generator, the ONNX exporter."""
