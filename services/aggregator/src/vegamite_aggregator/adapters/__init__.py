"""What touches the world: PostgreSQL stores and the schema."""
