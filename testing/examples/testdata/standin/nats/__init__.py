"""A stand-in for nats-py, for tests only: as much of its API as the examples use, over the
NATS text protocol, without reconnection and TLS.

The examples are run with it where nats-py is not installed, so that they are run at all."""

import asyncio
import json
import secrets
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlparse

from . import errors


@dataclass
class Msg:
    subject: str
    reply: str
    data: bytes
    headers: Optional[dict]


class Subscription:
    def __init__(self, client, sid):
        self._client, self._sid, self._queue = client, sid, asyncio.Queue()

    async def next_msg(self, timeout=1.0):
        try:
            msg = await asyncio.wait_for(self._queue.get(), timeout)
        except asyncio.TimeoutError:
            raise errors.TimeoutError from None
        if msg is None:
            raise errors.ConnectionClosedError
        return msg

    async def unsubscribe(self):
        self._client._subs.pop(self._sid, None)
        self._client._send(b"UNSUB %d\r\n" % self._sid)


class Client:
    def __init__(self, reader, writer, prefix):
        self._reader, self._writer, self._prefix = reader, writer, prefix
        self._subs, self._sid, self._task, self.max_payload = {}, 0, None, 0
        self.is_closed, self._pongs = False, []

    def _send(self, data):
        if self.is_closed:
            raise errors.ConnectionClosedError
        self._writer.write(data)

    async def publish(self, subject, payload=b"", reply="", headers=None):
        if len(payload) > self.max_payload:
            raise errors.MaxPayloadError
        target = " ".join(filter(None, [subject, reply]))
        if headers is None:
            self._send(f"PUB {target} {len(payload)}\r\n".encode() + payload + b"\r\n")
        else:
            block = b"NATS/1.0\r\n" + b"".join(f"{k}: {v.strip()}\r\n".encode() for k, v in headers.items()) + b"\r\n"
            self._send(f"HPUB {target} {len(block)} {len(block) + len(payload)}\r\n".encode() + block + payload + b"\r\n")
        await self._writer.drain()

    async def subscribe(self, subject):
        self._sid += 1
        sub = self._subs[self._sid] = Subscription(self, self._sid)
        self._send(f"SUB {subject} {self._sid}\r\n".encode())
        return sub

    def new_inbox(self):
        return f"{self._prefix}.{secrets.token_hex(11)}"

    async def request(self, subject, payload=b"", timeout=0.5, headers=None):
        inbox = self.new_inbox()
        sub = await self.subscribe(inbox)
        try:
            await self.publish(subject, payload, reply=inbox, headers=headers)
            msg = await sub.next_msg(timeout)
        finally:
            if not self.is_closed:
                await sub.unsubscribe()
        if (msg.headers or {}).get("Status") == "503":
            raise errors.NoRespondersError
        return msg

    async def flush(self, timeout=10):
        pong = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._send(b"PING\r\n")
        await asyncio.wait_for(pong, timeout)

    async def close(self):
        self._end()
        self._writer.close()

    def _end(self):
        self.is_closed = True
        for sub in self._subs.values():
            sub._queue.put_nowait(None)
        for pong in self._pongs:
            if not pong.done():
                pong.set_exception(errors.ConnectionClosedError())
        self._pongs = []

    async def _read(self):
        try:
            while True:
                line = (await self._reader.readuntil(b"\r\n")).split()
                if line[0] == b"PING":
                    self._send(b"PONG\r\n")
                elif line[0] == b"PONG":
                    pong = self._pongs.pop(0)
                    if not pong.done():
                        pong.set_result(None)
                elif line[0] in (b"MSG", b"HMSG"):
                    await self._message(line)
        except (OSError, asyncio.IncompleteReadError, errors.ConnectionClosedError):
            pass
        finally:
            self._end()

    async def _message(self, line):
        subject, sid, *reply = [x.decode() for x in line[1 : -2 if line[0] == b"HMSG" else -1]]
        body = (await self._reader.readexactly(int(line[-1]) + 2))[:-2]
        head, headers = 0, None
        if line[0] == b"HMSG":
            head = int(line[-2])
            first, *rest = body[:head].decode().strip().split("\r\n")
            headers = dict(text.split(": ", 1) if ": " in text else (text.rstrip(":"), "") for text in rest)
            if first[len("NATS/1.0") :].strip():
                headers["Status"] = first.split()[1]
        if int(sid) in self._subs:
            self._subs[int(sid)]._queue.put_nowait(Msg(subject, "".join(reply), body[head:], headers))


async def connect(servers, name=None, inbox_prefix="_INBOX", error_cb=None, user_credentials=None, pending_size=0):
    url = urlparse(servers if "://" in servers else "nats://" + servers)
    while True:
        try:
            reader, writer = await asyncio.open_connection(url.hostname, url.port or 4222, limit=1 << 16)
            break
        except OSError as err:  # as nats-py: it tries again, and its caller has a limit
            await error_cb(err)
            await asyncio.sleep(0.2)
    info = json.loads((await reader.readuntil(b"\r\n"))[len("INFO ") :])
    client = Client(reader, writer, inbox_prefix)
    client.max_payload = info["max_payload"]
    options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1, "lang": "python", "version": "0", "name": name}
    client._send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
    client._task = asyncio.create_task(client._read())
    await client.flush()
    return client
