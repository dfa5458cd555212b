"""The figures of the page, each an inline SVG that follows the page's colours."""
