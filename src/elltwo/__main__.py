"""`python -m elltwo`: the same program as the command `elltwo`."""

from elltwo.interfaces.cli.main import main

if __name__ == "__main__":
    main()
