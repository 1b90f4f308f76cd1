"""Puts load on whole relays from outside: clients, targets, a slow path, and a network to enroll in."""
