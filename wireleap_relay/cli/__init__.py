"""The ``wireleap-relay`` command."""
