"""Trains tiny_qwen_vl again."""

from interp_lab.zoo.tiny_qwen_vl.make import main

if __name__ == "__main__":
    main()
