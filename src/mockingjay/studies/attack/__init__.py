"""Spoofing countermeasures under attack, and what defends them."""
