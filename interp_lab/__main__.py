"""`python -m interp_lab`; everything is in `cli`, because worker processes cannot import this."""

from interp_lab.cli.command import main

if __name__ == "__main__":
    main()
