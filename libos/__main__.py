"""``python -m libos`` is ``libos``."""

from libos.cli import main

if __name__ == "__main__":
    main()
