// Package proc runs a child process of an agent in a group of its own, and sees to it that
// nothing of the group outlives the agent.
//
// Signals for the agent do not reach the group, and ours reach all that the child starts.
// What happens when the agent is killed and cannot do anything any more:
//
//   - With a guard (see [Guard]) the whole group ends, on Linux and other Unix systems. The
//     guard is a process between agent and child, the first of the group; it sees the end of
//     the agent by the end of a pipe.
//   - Without one, on Linux, the kernel kills the child itself; what the child has started
//     goes on. On other systems the child goes on, too, unless it sees that its standard
//     input has ended.
//   - On Windows there are no groups: a child is ended by itself, and outlives an agent that
//     is killed, unless it watches its standard input.
//
// A process that leaves its group and its session on purpose (setsid, a daemon) is found by
// none of these.
package proc
