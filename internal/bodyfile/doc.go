// Package bodyfile brings bodies from an object store to a disk, and from a disk into a
// store, in pieces: whole and verified by SHA-256, or not at all. What is to be where, and
// who is told, is its callers' (exchange/data: what every environment of an audience holds;
// agent/backend/deploy: what the tasks of an agent run).
//
//   - A [Part] is a download: its bytes and a note of how far they surely are on the disk. It
//     goes on where it stopped, over restarts of either side.
//   - [Fetch] fills it with direct gets, which need no consumer at the server, and gives way
//     where round trips get slow ([Pace]).
//   - [Send] is the other way.
//
// Memory does not grow with a body.
package bodyfile
