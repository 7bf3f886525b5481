"""The lecture decks' experiments: their table, their label sweep, and their sentences judged by our figures."""
