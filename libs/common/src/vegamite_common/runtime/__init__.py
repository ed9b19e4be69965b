"""What every process needs: clock, configuration, logging, lifecycle, health, connections."""
