"""The API's ports over real things: PostgreSQL and the bus."""
