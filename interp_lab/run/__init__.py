"""A study's way: `study` is the pipeline, `contract` what a study gives it.

`work` claims samples, `measure` is the loop over them, `merging` makes the result of what is
finished, `plan` says what a command would do, `selfcheck` what a run makes sure of, `sweep` how
jobs share samples.
"""
