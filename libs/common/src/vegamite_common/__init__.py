"""What vegamite's services share: domain types, wire messages, the bus, configuration and lifecycle."""
