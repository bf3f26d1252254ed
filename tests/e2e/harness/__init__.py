"""What the end-to-end tests are built on: a gateway process, a Kafka broker, a station, the events and their contract.

Each module is one of these. None asserts what the gateway should do, except what holds in every test.
"""
