"""Arrange, colour and save pictures, as tf-explain does."""
