"""Tests of `jaxlm.models`, a file for each of its modules."""
