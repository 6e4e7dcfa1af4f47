"""`flask.session`, of visitors and of people who are signed in."""
