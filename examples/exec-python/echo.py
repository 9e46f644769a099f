#!/usr/bin/env python3
"""A fleetbus child process in Python, with the standard library only.

It answers every request with the same bytes. Put a model in the place of serve().
The frames are described in agent/backend/execio/doc.go; in short:

    4 bytes  length of the header, big endian
             header, a JSON object with a "type"
    4 bytes  length of the body, big endian
             body, bytes

Standard output belongs to the frames: print to standard error, which goes to the
agent's log. Requests come one at a time unless the task sets a concurrency.
"""

import json
import os
import struct
import sys

# The binary ends of the pipes. print() is sent to standard error from here on, so that
# a library that prints does not break the frames.
frames_in, frames_out = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr


def read_exactly(n):
    """Returns the next n bytes; at the end of the input it ends the program."""
    data = frames_in.read(n)
    if len(data) < n:
        sys.exit(0)
    return data


def read_frame():
    (length,) = struct.unpack(">I", read_exactly(4))
    header = json.loads(read_exactly(length))
    (length,) = struct.unpack(">I", read_exactly(4))
    return header, read_exactly(length)


def write_frame(header, body=b""):
    text = json.dumps(header).encode()
    frames_out.write(struct.pack(">I", len(text)) + text + struct.pack(">I", len(body)))
    frames_out.write(body)
    frames_out.flush()


def serve(header, body):
    """Returns the answer to one request. An exception becomes its error."""
    if body == b"fail":
        raise ValueError("asked to fail")
    return body


def main():
    print("loading the model of task", os.environ.get("FLEETBUS_TASK", "?"))
    write_frame({"type": "ready"})
    while True:
        header, body = read_frame()
        if header["type"] != "request":
            continue  # "cancel": by the time it is read there is nothing left to cancel
        try:
            answer = serve(header, body)
        except Exception as err:
            write_frame({"type": "error", "id": header["id"], "message": str(err)})
        else:
            write_frame({"type": "result", "id": header["id"], "content_type": header.get("content_type", "")}, answer)


if __name__ == "__main__":
    main()
