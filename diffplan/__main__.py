"""`python -m diffplan` is `diffplan`."""

from diffplan.cli.main import main

if __name__ == "__main__":
    main()
