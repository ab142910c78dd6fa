"""The routes of the HTTP API, with a module for each kind of resource."""
