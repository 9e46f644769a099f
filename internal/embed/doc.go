// Package embed runs a NATS server with JetStream inside this process: the one of
// `fleetbus up` and the ones of our tests. It is the only package that links the
// server; agents, routers and coordinators stay free of it.
//
// A [Server] is made by [New], which checks the options and starts nothing.
// [Server.Run] is the whole life of it under a context; [Server.Start] and
// [Server.Stop] are its two halves for tests, which start the same server again on
// the same port and the same storage.
//
// # What it refuses
//
//   - An address that is not loopback without a token or a user and password. Every
//     door binds loopback unless it is told otherwise, and a door to the network has a
//     lock. The monitoring page has no lock, so it is always on loopback.
//   - A storage directory that another process uses. The NATS server itself does not
//     look, and two of them on one directory destroy each other's streams.
//
// # What it sets
//
//   - Payloads up to 8 MiB (the server's own default is 1): a request of a robot with
//     three cameras is 300 to 600 kB, and some have more cameras.
//   - No limit of consumers per stream (the server's own default is 1,000, which
//     counts every watcher of a bucket).
//   - A ping every 2 s, two of which may be missed, like our clients: a client that
//     hangs or is out of reach is dropped after 4 to 6 s instead of 5 to 7 minutes.
package embed
