"""Mutation testing: small faults in sync, the hub and the write side of the engine, each against the tests of its line."""
