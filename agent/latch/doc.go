// Package latch decides whether a robot may act. It is pure: orders, the answers to
// pings and the time go in, what is to be done comes out, and nothing here reads a clock
// or sends anything.
//
// A robot acts unless one of these holds, and each ends in its own way:
//
//   - an order that named it: until a newer order that names it releases it;
//   - an order for all robots: until a newer one releases all, or this one by name;
//   - a stop that was never saved: until a release that the agent hears;
//   - its link was lost: until a release that the agent hears, or, where it is configured
//     so, until the link has been well for a while;
//   - it does not know, because it has not read yet what was ordered while it was away:
//     until it has.
//
// It supplements a hardware stop and never replaces it: a program that hangs, or a
// handler that ignores the end of its context, stops nothing.
package latch
