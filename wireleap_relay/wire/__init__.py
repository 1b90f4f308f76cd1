"""Values that travel the network: frozen, without Twisted, I/O or a clock."""
