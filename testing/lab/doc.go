// Package lab is a small fleet in the test's own process: a NATS server, agents with the
// test's handlers, and clients. There is no coordinator: the test says who serves what, and
// agents and clients do as it says.
package lab
