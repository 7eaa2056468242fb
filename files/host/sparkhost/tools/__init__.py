"""Programs for people who train. They run as the user, and change nothing."""
