"""Fault injection: real stations, a real Kafka, the built binary, and everything that can go wrong with them."""
