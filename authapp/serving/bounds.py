"""How long and how large: the bounds that both servers are told."""

# seconds
KEEPALIVE = 80  # above a proxy's 60 or 75: it closes first and never hits a closing one
RECEIVE = 10  # for a request to arrive whole, from its first byte on
GRACEFUL = 10  # what requests get to end at a stop
BACKLOG = 2048  # connections that wait to be accepted
CONNECTIONS = 1000  # at once, in a worker
THREADS = 40  # of a worker: all but eight may be waiting for their turn to hash
REQUEST_LINE = 8_190  # bytes
