"""How much traffic the relay carries."""
