// Package e2e tests fleetbus as users run it: one binary, real processes, real NATS over
// TCP on loopback, SIGKILL and SIGTERM. What can be tested without a process that dies is
// tested beside its code, in virtual time where it waits.
package e2e
