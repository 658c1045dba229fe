"""Results on disk: parts while a run goes on, one HDF5 file when it is done.

`parts` writes finished samples atomically, `merge` makes the one file, `results` reads it,
`layout` is the only place that knows how fields lie in HDF5. Nothing here imports torch.
"""
