"""The names of keract, tf-explain and tf-keras-vis, for scripts that were written for them."""
