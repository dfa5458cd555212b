"""A row of a finished run as a model to ship: weights in the base's form, card, public record, page, signature."""
