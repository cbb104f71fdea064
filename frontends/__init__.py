"""Importers: model files in, graph IR out. Nothing here optimises."""
