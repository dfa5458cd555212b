"""Competing methods: what they are given, how they are fitted and searched."""
