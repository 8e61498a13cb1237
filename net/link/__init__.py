"""Network devices: in memory, TAP, by hand; wrappers that trace or impair any of them; Ethernet framing above them."""

assert __name__ == "libos.net.link", "import it as libos.net.link"
