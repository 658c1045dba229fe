"""The one door to the inside of transformers, torch and Hydra.

What is taken for granted about their insides stands here, a sentence and a contract test each
(`tests/libraries`), so that a new release fails there first and is mended in one place.
"""
