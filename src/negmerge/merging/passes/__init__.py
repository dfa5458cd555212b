"""Passes over a pool: chunks of every member, in threads, merged by the plain functions or counted first."""
