"""What the door of a fleetbus router wants and says (docs/protocol.md), without a network.

Only the standard library is needed. Copy this file into your program; ask.py beside it is
the half that talks to NATS.
"""

import re
import time
import uuid

# What may be asked again, after a pause: the same request may succeed later. Of an action
# these codes also say that it did not run.
RETRY_HERE = {"no_capacity", "not_placed", "busy", "not_connected", "unavailable", "conflict"}

# NATS should wait longer than the deadline: the router answers at the deadline at the
# latest, so silence for longer than this after it means that the router is gone.
GRACE_MS = 1000

# The least that is worth trying with.
LEAST_MS = 10

MAX_LEFT_MS = 86_400_000

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")


class FleetError(Exception):
    """A request that ended in an error. code is one of docs/protocol.md's."""

    def __init__(self, code, message, retry_after_ms=None):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.retry_after_ms = code, message, retry_after_ms


class Deadline:
    """A deadline on the clock of this process. Only what is left of it is ever sent."""

    def __init__(self, ms, clock=time.monotonic):
        if not 1 <= ms <= MAX_LEFT_MS:
            raise ValueError(f"deadline: found {ms} ms, allowed are 1 to {MAX_LEFT_MS}")
        self._clock, self._until = clock, clock() + ms / 1000

    def left_ms(self):
        """What is left, in whole milliseconds, rounded down; 0 when it is over."""
        return max(0, int((self._until - self._clock()) * 1000))


class Episode:
    """Numbers the actions of one run. A new run is a new episode."""

    def __init__(self, name=None):
        self.name = check_name("episode", name or uuid.uuid4().hex)
        self._seq = 0

    def next(self):
        self._seq += 1
        return self._seq


def check_name(what, name):
    if not _NAME.fullmatch(name) or "__" in name:
        raise ValueError(
            f"{what}: found {name!r}, allowed are 1 to 64 ASCII letters, digits, '-' and '_', a letter or digit first and last, and no '__'"
        )
    return name


def subject(kind, fleet, site, origin, *names):
    """Where to ask: names are the task, and of an action the robot before it."""
    if (kind, len(names)) not in {("inference", 1), ("training", 1), ("action", 2)}:
        raise ValueError(f"found {kind} of {names}, expected inference or training of a task, or action of a robot and a task")
    tokens = [fleet, site, origin, *names]
    for what, token in zip(["fleet", "site", "origin", "robot" if len(names) == 2 else "task", "task"], tokens):
        check_name(what, token)
    return ".".join(["fb", fleet, site, "req", kind, origin, *names])


def headers(**fields):
    """The headers of a request: left_ms=200 becomes Fb-Left-Ms. None leaves one out.
    Every request has an id of its own, also one that asks the same again."""
    fields.setdefault("id", uuid.uuid4().hex)
    named = {"-".join(["Fb", *(w.capitalize() for w in k.split("_"))]): str(v) for k, v in fields.items() if v is not None}
    if "Fb-Content-Type" in named:
        named["Content-Type"] = named.pop("Fb-Content-Type")
    return named


def error_of(got):
    """The error that the headers of an answer tell, or None. Their absence is success."""
    got = got or {}
    if got.get("Status") == "503":
        return FleetError("unavailable", "nobody listens: no router runs for this fleet, and nothing was done")
    code = got.get("Fb-Error")
    if not code:
        return None
    after = got.get("Fb-Retry-After-Ms", "")
    return FleetError(code, got.get("Fb-Error-Message", ""), int(after) if after.isdigit() else None)


def lost(kind):
    """The error where no answer came in time and a second: the router itself was lost."""
    if kind == "action":
        return FleetError("unknown_outcome", "the router was lost while the action was under way; it may have run: look before acting again")
    return FleetError("unavailable", "no answer within the deadline and a second more: the router was lost")


def is_progress(got):
    """Whether a message comes before the answer: a partial result, or how far it is."""
    return (got or {}).get("Fb-Kind") == "progress"


def pause_ms(err, tries, left_ms):
    """How long to wait before asking again, or None: do not ask again.

    tries counts the requests sent so far, from 1. The answer is the same for every kind of
    request, because lost() says unknown_outcome of an action, which is never asked again,
    and every code of RETRY_HERE says that an action did not run. What another replica could
    answer (backend_failed, draining) the router has tried already."""
    if err.code not in RETRY_HERE:
        return None
    wait = err.retry_after_ms if err.retry_after_ms is not None else min(2000, 50 * 2 ** min(tries - 1, 10))
    return wait if wait + LEAST_MS <= left_ms else None


class Parts:
    """Collects the partial results of one request. An attempt begins from part 1 again, so
    those of an older attempt are dropped; so is what comes twice."""

    def __init__(self):
        self.attempt, self.bodies = 0, {}

    def take(self, got, body):
        """Returns whether a progress message is news: a part or a report that counts."""
        attempt = int(got.get("Fb-Attempt", "1"))
        if attempt < self.attempt:
            return False
        if attempt > self.attempt:
            self.attempt, self.bodies = attempt, {}
        if "Fb-Part" in got:
            number = int(got["Fb-Part"])
            if number in self.bodies:
                return False
            self.bodies[number] = body
        return True


def cancel_subject(fleet, site, robot, origin):
    """Where to say that an action is not wanted any more. site is the robot's."""
    for what, token in [("fleet", fleet), ("site", site), ("robot", robot), ("origin", origin)]:
        check_name(what, token)
    return f"fb.{fleet}.{site}.cancel.{robot}.{origin}"


def cancel_body(request_id):
    """The msgpack map {"v": 1, "ids": [request_id]}, by hand: it is the only one needed."""
    text = check_name("id", request_id).encode()
    return b"\x82\xa1v\x01\xa3ids\x91\xd9" + bytes([len(text)]) + text


def cancel_heard(answer, request_id):
    """Whether the robot ran it and was told to stop: its answer names the id."""
    return request_id.encode() in answer
