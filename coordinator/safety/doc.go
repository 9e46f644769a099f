// Package safety stops robots and releases them, for the operator's side: [Stop] and
// [Release] give an order and tell who has acknowledged it, [Read] tells who is stopped,
// and [Announce] turns what robots say of themselves into events.
//
// An order is saved first and sent then, so that a robot that is away finds it when it
// comes back. A stop that cannot be saved in time is sent all the same, and the report
// says so; a release never is. Give the connection of an order nothing else to carry.
//
// It supplements a hardware stop and never replaces it.
package safety
