"""Layer 3: path walk, mounts, page cache and file systems. Nothing is here yet; see docs/architecture.md."""

assert __name__ == "libos.vfs", "import it as libos.vfs"
