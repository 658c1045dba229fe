"""Which token stands for which place of what a model was given: measured, for any model.

Nothing here knows a family. A place is measured on the network itself, so that a map cannot be
wrong about a processor's crop, a tower's order or a merge that nobody has described yet.
"""
