"""Tests of the values that travel."""
