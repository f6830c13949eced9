"""The checks of transports, by what they are about."""
