"""Schedule records and their choosers, one module per kernel family."""
