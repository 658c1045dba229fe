"""Trains tiny_llava again."""

from interp_lab.zoo.tiny_llava.make import main

if __name__ == "__main__":
    main()
