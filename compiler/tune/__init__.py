"""Searching around the cost model's choices on this machine.

`questions` says what there is to choose, `timing` runs two builds of a model in turns, `search` tries and keeps.
"""
