"""Real servers for tests: PostgreSQL, Kafka, InfluxDB and a browser, from the environment, Docker or packages."""
