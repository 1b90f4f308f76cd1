"""A relay under faults for a long time: what is done to it, what uses it meanwhile, and what is to hold all along."""
