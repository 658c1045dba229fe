"""Trains tiny_omni again."""

from interp_lab.zoo.tiny_omni.make import main

if __name__ == "__main__":
    main()
