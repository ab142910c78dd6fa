"""Keras callbacks: what a network sees, while it is trained."""
