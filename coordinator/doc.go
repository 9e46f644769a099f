// Package coordinator runs the shell around [placement.Machine]: it reads heartbeats,
// registrations and the desired state from NATS, feeds them to the Machine, and does what
// it says. Several may run; the one that holds the lease leads, the others follow on the
// same heartbeats, so that they are warm when they are elected.
//
// # Who does what
//
//   - One goroutine owns the Machine. It never waits for the network.
//   - One goroutine performs effects; saves and sends run beside it, many documents at once.
//     Of one document the Machine keeps the order: persist, then send, then hear the ack.
//   - One goroutine holds the lease (lease.go), one watches it (heir.go).
//   - One watches the agents bucket, one the desired bucket; see watch.go. A leader that
//     does not know of a task stops it, so none begins to lead before it knows all that was
//     written; see known.go.
//
// # What a dead coordinator costs
//
// Nothing that is asked for meanwhile: requests are served by the last plan. What is not
// done is to place tasks again, until another coordinator has the lease.
//
// The functions beside [Coordinator] are what an operator does: [Apply], [DeleteTask],
// [Drain], [Undrain], and the questions [ReadDesired], [ReadState], [Registrations].
package coordinator
