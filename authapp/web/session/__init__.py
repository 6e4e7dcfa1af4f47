"""`flask.session`: the interface that Flask calls, the session object, its data."""
