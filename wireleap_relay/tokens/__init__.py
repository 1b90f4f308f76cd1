"""Sharetokens: admission, safe-keeping and submission."""
