// Package openpiwire is the wire of openpi's policy servers: a WebSocket without
// compression and without a limit of its own, on port 8000 by default.
//
// When a client has connected, the server sends one binary message of metadata. Then the
// two take turns: the client sends an observation, the server an answer, each one binary
// message. Where the policy raises an exception the server sends a text message, the
// traceback, and closes with status 1011. Clients and servers ping each other every 20 s,
// so both must read all the time. A GET of /healthz is answered 200, "OK" and a newline.
//
// Messages are msgpack maps in which arrays are maps with keys of type bin. Nothing here
// reads them: decoded and encoded again they would be other bytes.
package openpiwire
