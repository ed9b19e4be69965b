"""Real servers for tests: PostgreSQL, Kafka and a browser, from the environment, Docker or packages."""
