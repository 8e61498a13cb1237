"""The far end of a `user` link: a gateway that ends the machine's connections and relays bytes to host sockets."""

assert __name__ == "libos.net.user", "import it as libos.net.user"
