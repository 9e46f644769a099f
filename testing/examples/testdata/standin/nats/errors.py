"""The errors of nats-py that the examples know."""

import asyncio


class Error(Exception):
    pass


class TimeoutError(asyncio.TimeoutError):
    pass


class NoRespondersError(Error):
    def __str__(self):
        return "nats: no responders available for request"


class MaxPayloadError(Error):
    def __str__(self):
        return "nats: maximum payload exceeded"


class ConnectionClosedError(Error):
    def __str__(self):
        return "nats: connection closed"
