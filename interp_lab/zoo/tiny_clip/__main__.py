"""Trains tiny_clip again."""

from interp_lab.zoo.tiny_clip.make import main

if __name__ == "__main__":
    main()
