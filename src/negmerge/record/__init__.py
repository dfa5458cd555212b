"""The record: a statement that others' tools can read, checked against a folder, and signed with it."""
