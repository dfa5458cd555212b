"""Sources of questions and texts by name. A new one is a file here: `SUMMARY`, `Settings`, `load(settings)`."""
