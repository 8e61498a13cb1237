"""libos: a library operating system. One process is one machine."""
