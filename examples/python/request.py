#!/usr/bin/env python3
"""Asks a fleet: an inference, an action, a training job. Needs nats-py.

    request.py infer detect --data 'an observation' --deadline-ms 500
    request.py infer caption --data 'an image' --stream
    request.py act robot-1 move --data "$(cat trajectory.json)" --deadline-ms 5000
    request.py train learn --data epochs=3 --key night-1

The answer's bytes go to standard output, all else to standard error. Exit status: 0 for an
answer, 1 for an error, 2 for a wrong call, 3 for an action of which nobody knows whether
it ran.
"""

import argparse
import asyncio
import os
import sys
import uuid

import ask
import wire


def progress(headers, body):
    """Shows what comes before the answer."""
    if "Fb-Part" in headers:
        print(f"part {headers['Fb-Part']}:", body.decode(errors="replace"), file=sys.stderr)
    else:
        print(f"{int(headers.get('Fb-Done', '0')) / 10:.0f} % done", headers.get("Fb-Note", ""), file=sys.stderr)


async def infer(nc, a):
    subject = wire.subject("inference", a.fleet, a.site, a.origin, a.task)
    deadline = wire.Deadline(a.deadline_ms)
    if a.stream:
        return await ask.retried(deadline, lambda: ask.stream(nc, "inference", subject, a.data.encode(), deadline, progress, key=a.key))
    return await ask.retried(deadline, lambda: ask.once(nc, subject, a.data.encode(), deadline, key=a.key))


async def act(nc, a):
    deadline, episode, request_id = wire.Deadline(a.deadline_ms), wire.Episode(a.episode), None
    canceling = None
    if a.cancel_after is not None:
        request_id = uuid.uuid4().hex

        async def later():
            await asyncio.sleep(a.cancel_after)
            heard = await ask.cancel(nc, a.fleet, a.site, a.robot, a.origin, request_id)
            print({True: "the robot was told to stop", False: "the robot does not have it", None: "no word from the robot"}[heard], file=sys.stderr)

        canceling = asyncio.create_task(later())
    try:
        return await ask.act(nc, a.fleet, a.site, a.origin, a.robot, a.task, a.data.encode(), deadline, episode, progress, request_id)
    finally:
        if canceling:
            await asyncio.wait([canceling], timeout=0.1)  # its answer comes at about the same time
            canceling.cancel()


async def train(nc, a):
    # The key makes it safe to submit again: the same key is the same job.
    subject, deadline = wire.subject("training", a.fleet, a.site, a.origin, a.task), wire.Deadline(10_000)
    return await ask.retried(deadline, lambda: ask.once(nc, subject, a.data.encode(), deadline, key=wire.check_name("--key", a.key)))


def arguments(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", default=os.environ.get("NATS_URL") or "nats://127.0.0.1:4222")
    p.add_argument("--creds", help="NATS credentials file")
    p.add_argument("--fleet", default="fleet")
    p.add_argument("--site", default="main")
    p.add_argument("--origin", default="python-example", help="who asks: one name per program")
    sub = p.add_subparsers(required=True)
    i = sub.add_parser("infer", help="an inference")
    i.add_argument("task")
    i.add_argument("--key", help="of one key only the newest observation counts: the name of a camera")
    i.add_argument("--stream", action="store_true", help="partial results, please")
    i.set_defaults(run=infer)
    c = sub.add_parser("act", help="an action on a robot")
    c.add_argument("robot")
    c.add_argument("task")
    c.add_argument("--episode", help="a new one for every run (default: a random one)")
    c.add_argument("--cancel-after", type=float, metavar="S", help="cancel it after so many seconds")
    c.set_defaults(run=act)
    t = sub.add_parser("train", help="submit a training job; prints its id")
    t.add_argument("task")
    t.add_argument("--key", required=True, help="your name for the job; the same name again is the same job")
    t.set_defaults(run=train)
    for s in (i, c, t):
        s.add_argument("--data", required=True, help="the body")
        s.add_argument("--deadline-ms", type=int, default=5000)
    return p.parse_args(argv)


async def main():
    a = arguments(sys.argv[1:])
    try:
        wire.check_name("origin", a.origin)  # it stands in the name of the inbox, too
        nc = await ask.connect(a.server, a.origin, a.creds)
        try:
            msg = await a.run(nc, a)
        finally:
            await nc.close()
    except wire.FleetError as err:
        print(err, file=sys.stderr)
        return 3 if err.code == "unknown_outcome" else 1
    except ValueError as err:
        print(err, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(msg.data + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
