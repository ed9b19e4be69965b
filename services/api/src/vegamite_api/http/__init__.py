"""The API over HTTP and WebSocket: routes of a few lines, each calling a service; and what surrounds them."""
