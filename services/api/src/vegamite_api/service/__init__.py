"""The API at work between its ports: the tail of the log, the hub, the connections, the keys."""
