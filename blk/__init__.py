"""Layer 2: block requests, queues and disks. Nothing is here yet; see docs/architecture.md for what will be."""

assert __name__ == "libos.blk", "import it as libos.blk"
