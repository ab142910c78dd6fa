"""Replacements for keract, tf-explain and tf-keras-vis with their public names."""
