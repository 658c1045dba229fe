"""Models whose weights are computed, not trained: which head does what is known beforehand.

`stream` and `heads` write a transformer by hand, `mechanism` is the one that reads boards, `llava`
and `qwen_vl` put it into networks of transformers, `measure` cuts it against its `claims`, `truth`
is the file of what held, and `scores` holds a definition's numbers against it.
"""
