"""What `libos run` puts in the place of modules that a program imports, so that it need not know where it runs.

Each shim is a context manager that installs it and takes it away again; the state is the machine's, never the module's.
"""
