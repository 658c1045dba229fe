"""Figures of a result: chosen by the types of its fields, drawn without torch.

`base` holds style, sheet and saving, `fonts` the scripts that labels may use, `panels` the drawing
on one pair of axes, `maps` and `run_maps` whole figures, `draw` all figures of a run.
"""
