"""A whole network on this machine: what relays are tried on, and what their tests run against."""
