"""Operators, each of which keeps one result up to date: changed rows in, changes of the result out; without Trio or SQLite."""
