"""Many machines in one process, on one virtual clock, under one seed."""
