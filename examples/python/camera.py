#!/usr/bin/env python3
"""Sends a camera's frames at a fixed rate; of the answers only the newest counts.

    camera.py detect --hz 15 --seconds 10 --key camera-0 --deadline-ms 200

A frame is sent when its time has come, whether or not the last one was answered. All carry
the same key, so when the link or the model is slower than the camera, the router ends the
frames in between as superseded instead of letting them queue. Nothing is asked again: the
next frame is newer than any retry.
"""

import argparse
import asyncio
import os
import sys
import time
from collections import Counter

import ask
import wire


def frame(number, size):
    """The place of your camera: a picture with its number in the first 8 bytes."""
    return number.to_bytes(8, "big") + bytes(max(0, size - 8))


class Newest:
    """Keeps the newest answer: one of an older frame that comes late changes nothing."""

    def __init__(self):
        self.number, self.counts, self.ages = -1, Counter(), []
        self.quiet_until = 0.0

    def answer(self, number, age):
        if number < self.number:
            self.counts["older than one that was used"] += 1
            return False
        self.number = number
        self.counts["used"] += 1
        self.ages.append(age)
        return True

    def error(self, err, now):
        """A frame without an answer. busy says when to send the next one."""
        self.counts[err.code] += 1
        if err.retry_after_ms is not None:
            self.quiet_until = max(self.quiet_until, now + err.retry_after_ms / 1000)

    def summary(self, sent, skipped):
        ages = sorted(self.ages)
        text = f"sent {sent}, skipped {skipped}" + "".join(f", {what} {n}" for what, n in sorted(self.counts.items()))
        if ages:
            text += f"; age of an answer: median {1000 * ages[len(ages) // 2]:.1f} ms, worst {1000 * ages[-1]:.1f} ms"
        return text


async def one(nc, subject, a, number, newest):
    """Sends one frame and takes its answer."""
    begun = time.monotonic()
    try:
        msg = await ask.once(nc, subject, frame(number, a.bytes), wire.Deadline(a.deadline_ms), key=a.key, content_type="image/raw")
    except wire.FleetError as err:
        newest.error(err, time.monotonic())
        return
    if newest.answer(number, time.monotonic() - begun):
        pass  # act on msg.data here


async def loop(nc, a):
    subject = wire.subject("inference", a.fleet, a.site, a.origin, a.task)
    newest, running, begun, sent, skipped = Newest(), set(), time.monotonic(), 0, 0
    for number in range(int(a.hz * a.seconds)):
        # Against the start, so that no delay adds up.
        await asyncio.sleep(max(0.0, begun + number / a.hz - time.monotonic()))
        if time.monotonic() < newest.quiet_until:
            skipped += 1
            continue
        sent += 1
        task = asyncio.create_task(one(nc, subject, a, number, newest))
        running.add(task)  # asyncio itself keeps no hold of it
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    print(newest.summary(sent, skipped))
    return 0 if newest.counts["used"] else 1


async def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("task")
    p.add_argument("--server", default=os.environ.get("NATS_URL") or "nats://127.0.0.1:4222")
    p.add_argument("--creds", help="NATS credentials file")
    p.add_argument("--fleet", default="fleet")
    p.add_argument("--site", default="main")
    p.add_argument("--origin", default="python-camera")
    p.add_argument("--key", default="camera-0", help="the camera's name")
    p.add_argument("--hz", type=float, default=15.0)
    p.add_argument("--seconds", type=float, default=10.0)
    p.add_argument("--bytes", type=int, default=301_436, help="of a frame")
    p.add_argument("--deadline-ms", type=int, default=200)
    a = p.parse_args()
    if not 0 < a.hz <= 1000 or not 0 < a.seconds <= 86_400:
        p.error(f"found --hz {a.hz} and --seconds {a.seconds}, allowed are up to 1000 and 86400, more than 0")
    try:
        wire.check_name("origin", a.origin)
        wire.check_name("key", a.key)
        wire.Deadline(a.deadline_ms)
        nc = await ask.connect(a.server, a.origin, a.creds)
        try:
            return await loop(nc, a)
        finally:
            await nc.close()
    except wire.FleetError as err:
        print(err, file=sys.stderr)
        return 1
    except ValueError as err:
        print(err, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
