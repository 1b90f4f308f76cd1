"""A relay's daemon, as other processes see it: whether it runs, how to start it, stop it and tell it something."""
