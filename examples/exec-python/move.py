#!/usr/bin/env python3
"""A fleetbus child process that executes trajectories: partial results while it moves, and
it stops when it is told to.

The body of a request is JSON, with times in seconds from the start:

    {"joint_names": ["a", "b"], "points": [{"t": 0.5, "positions": [0.1, 0.2]}, ...]}

At every point it sends {"positions": [...]} as a partial result and says how far it is.
Put your arm's driver in the place of Arm. Frames and print() are those of echo.py.

One thread reads frames, so that a cancellation is heard while the arm moves. It also hears
that the agent is gone, the end of the input, and stops the arm then as well.
"""

import json
import queue
import threading
import time

from echo import read_frame, write_frame


class Refused(ValueError):
    """The request cannot be executed as it is; the caller is told bad_request."""


class Arm:
    """The place of your driver: it is where it was told to be, at once."""

    def __init__(self):
        self.positions = []

    def move_to(self, positions):
        self.positions = positions

    def hold(self):
        print("the arm holds at", self.positions)


def parse(body):
    """Returns the points of a trajectory as (seconds, positions); Refused where it is none."""
    try:
        goal = json.loads(body)
        joints = len(goal["joint_names"])
        points = [(float(p["t"]), [float(x) for x in p["positions"]]) for p in goal["points"]]
    except (ValueError, KeyError, TypeError) as err:
        raise Refused(f"found no trajectory in the body ({err!r}); expected JSON with joint_names, and points with t and positions") from None
    if not points:
        raise Refused("points: found none, expected at least one")
    last = 0.0
    for i, (at, positions) in enumerate(points):
        if len(positions) != joints:
            raise Refused(f"points[{i}].positions: found {len(positions)}, expected one for each of {joints} joints")
        if not last <= at < 3600:  # False for NaN, too
            raise Refused(f"points[{i}].t: found {at}, expected seconds that do not go back, below 3600")
        last = at
    return points


def execute(arm, points, left, stop, tell):
    """Moves the arm through the points and returns how it ended: "done", "canceled" or "late".

    left are the seconds until the deadline, or None; stop is a threading.Event; tell is
    called at every point with what has been done, 0 to 1, and the positions."""
    begun = time.monotonic()
    for i, (at, positions) in enumerate(points):
        if left is not None and at > left:
            stop.wait(max(0.0, begun + left - time.monotonic()))
            arm.hold()
            return "canceled" if stop.is_set() else "late"
        if stop.wait(max(0.0, begun + at - time.monotonic())):
            arm.hold()
            return "canceled"
        arm.move_to(positions)
        tell((i + 1) / len(points), positions)
    return "done"


def read(requests, stops):
    """Passes requests on, and sets the event of one that is canceled."""
    try:
        while True:
            header, body = read_frame()
            if header["type"] == "request":
                stops[header["id"]] = threading.Event()
                requests.put((header, body))
            elif header["type"] == "cancel" and header["id"] in stops:
                stops[header["id"]].set()
    except SystemExit:  # read_frame at the end of the input: the agent is gone
        pass
    finally:  # also where a frame could not be read
        for stop in list(stops.values()):
            stop.set()
        requests.put(None)


def serve(arm, header, body, stop):
    """Answers one request."""
    about = {"id": header["id"]}

    def tell(done, positions):
        write_frame({"type": "progress", "done": done, **about})
        write_frame({"type": "partial", "content_type": "application/json", **about}, json.dumps({"positions": positions}).encode())

    try:
        left = header["deadline_ms"] / 1000 if "deadline_ms" in header else None
        points = parse(body)
        ended = execute(arm, points, left, stop, tell)
    except Refused as err:
        write_frame({"type": "error", "code": "bad_request", "message": str(err), **about})
    except Exception as err:  # a fault of the driver
        arm.hold()
        write_frame({"type": "error", "message": str(err), **about})
    else:
        if ended == "done":
            write_frame({"type": "result", "content_type": "application/json", **about}, json.dumps({"positions": arm.positions}).encode())
        else:  # the caller of an action that was cut off is told unknown_outcome, whatever stands here
            write_frame({"type": "error", "message": f"the trajectory was {ended}", **about})


def main():
    arm, requests, stops = Arm(), queue.Queue(), {}
    write_frame({"type": "ready"})
    threading.Thread(target=read, args=(requests, stops), daemon=True).start()
    while (request := requests.get()) is not None:
        header, body = request
        serve(arm, header, body, stops[header["id"]])
        del stops[header["id"]]


if __name__ == "__main__":
    main()
