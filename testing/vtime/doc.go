// Package vtime holds tests in virtual time: of messages/bus against a real NATS
// server, and of what natstest promises there. They are in a package of their own
// because virtual-time tests need a test binary of their own (see natstest).
package vtime
