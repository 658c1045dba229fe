"""The only place that relies on the inside of Hydra, transformers and torch.

What a library promises in its documentation is used where it is needed. What it only happens to do
(private names, the type behind an argument, the schema of a kernel) is assumed here alone, one
function or constant an assumption, and each has a test in `tests/libraries` that runs on every
version that `make test-versions` knows. This file imports nothing: `hydra_inside` needs neither
torch nor transformers, which `--help` must not wait for.
"""
