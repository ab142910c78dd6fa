"""The viewer: a page that shows what a network makes of a picture, and the HTTP API behind it."""
