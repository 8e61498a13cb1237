"""Measurements: the same work on the kernel's stack and on libos's, side by side. Users of libos; nothing imports them
but the command line."""

assert __name__ == "libos.bench", "import it as libos.bench"
