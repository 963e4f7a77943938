"""Files that appear whole or not at all, and what names them."""
