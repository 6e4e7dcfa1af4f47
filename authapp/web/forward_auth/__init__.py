"""Forward-auth: a proxy asks whether a request to another web app may pass, and whose it is.

`decision.py` decides, alike for all proxies. `proxies.py` says how each proxy asks, and
`answers.py` how it is answered. `asked_address.py` reads the address that the proxy asks.
"""
