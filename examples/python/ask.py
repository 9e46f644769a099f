"""Asks a fleetbus router over nats-py. What is decided stands in wire.py."""

import asyncio
import sys

import nats
import nats.errors

import wire


async def connect(server, origin, credentials=None, within=5):
    """Connects, within so many seconds; afterwards nats-py reconnects by itself."""

    async def say(err):
        print("nats:", err, file=sys.stderr)

    options = {"user_credentials": credentials} if credentials else {}
    try:
        # Answers come to an inbox of our own: it is what a client is allowed to read.
        return await asyncio.wait_for(nats.connect(server, name=origin, inbox_prefix=f"_INBOX_{origin}", error_cb=say, **options), within)
    except asyncio.TimeoutError:
        raise wire.FleetError("unavailable", f"no NATS server answers on {server} within {within} s: is it running, and do the credentials fit?") from None


async def request(nc, subject, body, deadline, **fields):
    """One inference or one submission; returns the answer, or raises wire.FleetError.

    It is asked again where that may help, as long as there is time, each time with what is
    left of it. Not for actions: see act()."""
    tries = 0
    while True:
        tries += 1
        left = deadline.left_ms()
        if left < 1:
            raise wire.FleetError("deadline_exceeded", "no time was left to ask")
        try:
            msg = await nc.request(subject, body, timeout=(left + wire.GRACE_MS) / 1000, headers=wire.headers(left_ms=left, **fields))
            err = wire.error_of(msg.headers)
            if err is None:
                return msg
        except nats.errors.NoRespondersError:
            err = wire.error_of({"Status": "503"})
        except nats.errors.MaxPayloadError:
            raise wire.FleetError("payload_too_large", f"the body has {len(body)} bytes, the server takes {nc.max_payload} with the headers") from None
        except asyncio.TimeoutError:  # also nats.errors.TimeoutError
            err = wire.lost("inference")
        pause = wire.pause_ms(err, tries, deadline.left_ms())
        if pause is None:
            raise err
        await asyncio.sleep(pause / 1000)


async def stream(nc, kind, subject, body, deadline, on_progress, **fields):
    """One request whose partial results are wanted: sent once, never again.

    on_progress(headers, body) is called for each message before the answer. Returns the
    answer, or raises wire.FleetError."""
    inbox = nc.new_inbox()
    sub = await nc.subscribe(inbox)
    parts = wire.Parts()
    try:
        left = deadline.left_ms()
        if left < 1:
            raise wire.FleetError("deadline_exceeded", "no time was left to ask; nothing was sent")
        try:
            await nc.publish(subject, body, reply=inbox, headers=wire.headers(left_ms=left, stream=1, **fields))
        except nats.errors.MaxPayloadError:
            raise wire.FleetError("payload_too_large", f"the body has {len(body)} bytes, the server takes {nc.max_payload} with the headers") from None
        while True:
            try:
                msg = await sub.next_msg(timeout=(deadline.left_ms() + wire.GRACE_MS) / 1000)
            except asyncio.TimeoutError:
                raise wire.lost(kind) from None
            if not wire.is_progress(msg.headers):
                break
            if parts.take(msg.headers, msg.data):
                on_progress(msg.headers, msg.data)
        err = wire.error_of(msg.headers)
        if err is not None:
            raise err
        return msg
    finally:
        await sub.unsubscribe()


async def act(nc, fleet, site, origin, robot, task, body, deadline, episode, on_progress=lambda headers, data: None, request_id=None):
    """One action. It is sent again only after an error that says that it did not run, and
    never after unknown_outcome: then look at the robot before you act again.

    request_id names it for cancel(); it is then sent once only."""
    subject = wire.subject("action", fleet, site, origin, robot, task)
    tries = 0
    while True:
        tries += 1
        try:
            return await stream(nc, "action", subject, body, deadline, on_progress, episode=episode.name, seq=episode.next(), **({"id": request_id} if request_id else {}))
        except wire.FleetError as err:
            pause = wire.pause_ms(err, tries, deadline.left_ms())
            if pause is None or request_id:
                raise
            await asyncio.sleep(pause / 1000)


async def cancel(nc, fleet, site, robot, origin, request_id, within=2):
    """Tells a robot to stop an action. True: it ran, and was told; its caller then gets
    unknown_outcome, because it ran in part. False: the robot does not have it. Whether the
    word arrived is unknown (None) where nothing came back within so many seconds."""
    try:
        msg = await nc.request(wire.cancel_subject(fleet, site, robot, origin), wire.cancel_body(request_id), timeout=within)
    except nats.errors.NoRespondersError:
        return False
    except asyncio.TimeoutError:
        return None
    return wire.cancel_heard(msg.data, request_id)
