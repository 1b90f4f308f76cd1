"""Upgrades: releases that are verified, tried beside the running relay, and put back where they fail."""
