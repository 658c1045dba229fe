"""Models whose weights are computed, not trained: which head does what is known beforehand.

`stream` and `heads` write a transformer by hand, `mechanism` is the one that reads boards, `llava`
puts it into a network of transformers, `measure` cuts it, and `truth` says what is in it.
"""
