"""What abuse costs: a gateway with ordinary stations, abusers beside them, and the account of both."""
