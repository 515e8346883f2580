"""What a caller may use: requests, tokens and streams, alone or together with other replicas.

limiter.py    the face that the app sees
requests.py   requests by calendar window: Kong's limits of the edge, and the tenants' own
edge.py       the rate-limiting plugins and routes of the rendered Kong file
tokens.py     tokens by calendar window: reserved before, settled after
streams.py    streams at a time
ledger.py     counters of calendar windows, in this process
shared.py     the same counters in Redis, and what happens without it
link.py       the connection to Redis: batched, bounded in time, never an outage
periods.py    calendar windows
settings.py   what can be set
"""
