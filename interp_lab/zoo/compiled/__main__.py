"""Makes the compiled models again: weights, truth and card."""

from interp_lab.zoo.compiled.make import main

if __name__ == "__main__":
    main()
