"""What every layer speaks; imports nothing of ours."""
