"""What abuse costs: a gateway with ordinary stations, abusers beside them, and measurements of both."""
