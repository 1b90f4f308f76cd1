"""The data plane: in the daemon's own process, or in one process per processor core."""
