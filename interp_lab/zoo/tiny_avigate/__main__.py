"""Trains tiny_avigate again."""

from interp_lab.zoo.tiny_avigate.make import main

if __name__ == "__main__":
    main()
