// Package messages is the vocabulary of fleetbus: the tiers, resources, tasks,
// heartbeats, placements, requests, results, subjects and errors that agents,
// coordinators, routers and clients exchange over NATS.
//
// The package does no I/O, starts no goroutine and reads no clock. Every other
// package of the module imports it and it imports none of them, so whatever two
// processes must agree on stands here, once.
//
// Two encodings travel on the wire:
//
//   - Control messages ([Heartbeat], [Placement], [PlacementAck], [Routes],
//     [Outcome], …) are msgpack maps with short string keys and a version field
//     "v". A decoder ignores keys that it does not know, so an older program
//     reads a newer message. [Encode] and [Decode] are the only way in and out.
//   - A request's or a result's body belongs to the user and is never decoded.
//     What fleetbus needs to know of it rides in NATS headers: see [Request] and
//     [Reply].
//
// Subjects are built and parsed in subjects.go and nowhere else. A name that
// becomes part of a subject is checked by [CheckName] when it is made.
//
// Units, everywhere: compute in TFLOPS, work in GFLOP, storage in GB, network in
// Mbps, transfer in kbit, latency in ms, price in currency per hour. One GFLOP at
// one TFLOPS takes one millisecond; so does one kbit at one Mbps.
package messages
