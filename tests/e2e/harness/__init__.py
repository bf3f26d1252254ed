"""What the end-to-end tests stand on: a gateway process, a Kafka broker, a station, the events and their contract.

Each module is one of these. Nothing in here asserts what the gateway should do, except what holds in every test.
"""
