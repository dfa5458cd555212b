"""What a merge writes: weights, the record in them, the files beside them, and the report."""
