"""The open questions of the paper, each measured on pools that all of them share."""
