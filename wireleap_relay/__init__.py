"""A relay of the Wireleap network, on Twisted."""

#: The software version: it continues the Go relay's line (semver), so that a
#: directory which announces 0.6.1 never asks this relay to go back.
__version__ = "0.7.0"
