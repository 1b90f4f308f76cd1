"""The data plane: HTTP/2 streams in, TCP and UDP out."""
