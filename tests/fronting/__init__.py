"""A relay behind the web servers that people run."""
