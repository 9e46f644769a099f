"""Asks a fleetbus router over nats-py. What is decided stands in wire.py."""

import asyncio
import sys

import nats
import nats.errors

try:
    from . import wire  # in a package, as in examples/ros2
except ImportError:
    import wire


async def connect(server, origin, credentials=None, within=5):
    """Connects, within so many seconds; afterwards nats-py reconnects by itself."""

    async def say(err):
        print("nats:", err, file=sys.stderr)

    options = {"user_credentials": credentials} if credentials else {}
    try:
        # Answers come to an inbox of our own: it is what a client is allowed to read. And
        # nothing is kept to be sent when the link is back: it would come late.
        return await asyncio.wait_for(nats.connect(server, name=origin, inbox_prefix=f"_INBOX_{origin}", pending_size=0, error_cb=say, **options), within)
    except asyncio.TimeoutError:
        raise wire.FleetError("unavailable", f"no NATS server answers on {server} within {within} s: is it running, and do the credentials fit?") from None


async def once(nc, subject, body, deadline, **fields):
    """Sends one inference or submission, once; returns the answer, or raises wire.FleetError."""
    left = left_of(deadline)
    try:
        msg = await nc.request(subject, body, timeout=(left + wire.GRACE_MS) / 1000, headers=wire.headers(left_ms=left, **fields))
        err = wire.error_of(msg.headers)
    except nats.errors.NoRespondersError:
        err = wire.error_of({"Status": "503"})
    except asyncio.TimeoutError:  # also nats.errors.TimeoutError
        err = wire.lost("inference")
    except nats.errors.Error as failed:
        err = not_sent(nc, body, failed)
    if err is not None:
        raise err
    return msg


async def retried(deadline, send):
    """Calls send() until there is an answer, or an error that another try does not change;
    each try has what is left of the deadline."""
    tries = 0
    while True:
        tries += 1
        try:
            return await send()
        except wire.FleetError as err:
            pause = wire.pause_ms(err, tries, deadline.left_ms())
            if pause is None:
                raise
            await asyncio.sleep(pause / 1000)
            if deadline.left_ms() < wire.LEAST_MS:
                raise


async def stream(nc, kind, subject, body, deadline, on_progress, **fields):
    """Sends one request, once, whose partial results are wanted.

    on_progress(headers, body) is called for each message before the answer. Returns the
    answer, or raises wire.FleetError."""
    if kind == "action":
        await link(nc, deadline)
    inbox = nc.new_inbox()
    try:
        sub = await nc.subscribe(inbox)
    except nats.errors.Error as failed:
        raise not_sent(nc, body, failed) from None
    parts = wire.Parts()
    try:
        left = left_of(deadline)
        try:
            await nc.publish(subject, body, reply=inbox, headers=wire.headers(left_ms=left, stream=1, **fields))
        except nats.errors.Error as failed:
            raise not_sent(nc, body, failed) from None
        while True:
            try:
                msg = await sub.next_msg(timeout=(deadline.left_ms() + wire.GRACE_MS) / 1000)
            except (asyncio.TimeoutError, nats.errors.Error):  # silence, or the connection was closed
                raise wire.lost(kind) from None
            if not wire.is_progress(msg.headers):
                break
            if parts.take(msg.headers, msg.data):
                on_progress(msg.headers, msg.data)
    finally:
        if not nc.is_closed:
            await sub.unsubscribe()
    err = wire.error_of(msg.headers)
    if err is not None:
        raise err
    return msg


def left_of(deadline):
    left = deadline.left_ms()
    if left < 1:
        raise wire.FleetError("deadline_exceeded", "no time was left to ask; nothing was sent")
    return left


def not_sent(nc, body, failed):
    """The error where nats-py did not take a message."""
    if isinstance(failed, nats.errors.MaxPayloadError):
        return wire.FleetError("payload_too_large", f"the body has {len(body)} bytes, the server takes {nc.max_payload} with the headers")
    return wire.FleetError("unavailable", f"nothing was sent: {failed}")


async def link(nc, deadline):
    """Asks the server for a sign of life before an action is sent, within a second: a
    command that lies in a socket while the link is down would reach the robot late, with all
    the time that it once had."""
    sign = asyncio.ensure_future(nc.flush(timeout=60))
    sign.add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever waited has gone on
    # wait, not wait_for: nats-py stops reading when a pong comes whose flush was canceled.
    await asyncio.wait([sign], timeout=min(1.0, left_of(deadline) / 1000))
    if not sign.done() or sign.exception():
        raise wire.FleetError("unavailable", f"the link to the server is down; nothing was sent ({sign.exception() if sign.done() else 'no sign of life'})")


async def act(nc, fleet, site, origin, robot, task, body, deadline, episode, on_progress=lambda headers, data: None, request_id=None):
    """One action. It is sent again only after an error that says that it did not run, and
    never after unknown_outcome: then look at the robot before you act again.

    request_id names it for cancel(); it is then sent once only."""
    subject = wire.subject("action", fleet, site, origin, robot, task)
    named = {"id": request_id} if request_id else {}

    def send():
        return stream(nc, "action", subject, body, deadline, on_progress, episode=episode.name, seq=episode.next(), **named)

    return await (send() if request_id else retried(deadline, send))


async def cancel(nc, fleet, site, robot, origin, request_id, within=2):
    """Tells a robot to stop an action. True: it ran, and was told; its caller then gets
    unknown_outcome, because it ran in part. False: the robot does not have it. Whether the
    word arrived is unknown (None) where nothing came back within so many seconds."""
    try:
        msg = await nc.request(wire.cancel_subject(fleet, site, robot, origin), wire.cancel_body(request_id), timeout=within)
    except nats.errors.NoRespondersError:
        return False
    except (asyncio.TimeoutError, nats.errors.Error):
        return None
    return wire.cancel_heard(msg.data, request_id)
