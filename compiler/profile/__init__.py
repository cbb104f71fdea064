"""Where the time of a model goes: every layer of it, against what the machine can do.

`machine` measures the machine, `probed` builds and runs code with counters between its steps, `rows` makes the table,
`trace` and `picture` its other forms.
"""
