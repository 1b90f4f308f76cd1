"""Contracts and directories, as a relay speaks with them: signed JSON over HTTP."""
