"""A network written as text IR: parsed, optimised, compiled, and compared with the numpy reference."""

from __future__ import annotations

import numpy as np

import sqzc

TEXT = """
graph @edges(%picture: f32[1,1,16,16]) {
  const %w = [-1.0, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0] : f32[1,1,3,3]
  const %half = [0.5] : f32[1]
  %steep = conv2d(%picture, %w) : f32[1,1,14,14]
  %up = relu(%steep) : f32[1,1,14,14]
  %soft = mul(%up, %half) : f32[1,1,14,14]
  %best = max_pool2d(%soft) {kernel=2x2, stride=2x2} : f32[1,1,7,7]
  yield %best as "edges"
}
"""


def main() -> None:
    """Prints the graph before and after its passes, and how far the code is from the reference."""
    graph = sqzc.parse(TEXT)
    print(graph)
    print(sqzc.optimize(graph, "O1"))
    picture = np.random.default_rng(0).uniform(0, 255, (1, 1, 16, 16)).astype(np.float32)
    got = sqzc.compile(graph)(picture)
    expected = sqzc.evaluate(graph, {"picture": picture}, dtype="float64")["edges"]
    print("largest difference from the reference in double precision:", np.abs(got - expected).max())


if __name__ == "__main__":
    main()
