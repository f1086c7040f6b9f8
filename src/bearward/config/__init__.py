"""What the operator wrote: YAML with positions, presets, a model, and every fault of a file in one report.

In: a path. Out: `Settings`, values of the two domains, all checked. Nothing here does network I/O.
"""
