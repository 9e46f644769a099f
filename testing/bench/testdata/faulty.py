"""The example of a child process with a fault planted in it: of every 20 requests one is
answered with the number of another one (wrong), or never (drop)."""

import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "examples", "exec-python"))
import echo  # noqa: E402

fault = sys.argv[1]


def serve(header, body):
    (number,) = struct.unpack(">Q", body[:8])
    if number % 20 == 19 and fault == "wrong":
        return struct.pack(">Q", number - 1) + body[8:]
    return body


write_frame = echo.write_frame


def write(header, body=b""):
    if fault == "drop" and header["type"] == "result" and struct.unpack(">Q", body[:8])[0] % 20 == 19:
        return
    write_frame(header, body)


echo.serve, echo.write_frame = serve, write
echo.main()
