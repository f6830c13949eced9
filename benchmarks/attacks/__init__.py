"""A hub under attack: the hub, a bystander and an attacker, each in a process of its own."""
