"""The compiled way: loops that read, fold and apply blocks of every member while they lie in the cache."""
