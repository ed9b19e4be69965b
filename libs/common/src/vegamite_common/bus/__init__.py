"""The message log as a port with two adapters: Kafka, and one inside the process."""
