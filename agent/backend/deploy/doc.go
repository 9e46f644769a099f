// Package deploy serves tasks that bring what serves them (messages.Run): an artifact out of
// the fleet's store, a command, and how what it starts is asked. It is the owner of a machine
// who allows that, by giving the agent a [Deployer]: whoever may apply tasks then runs
// programs there, with the rights of the agent.
//
// # What happens to a replica
//
//   - Its artifact is fetched, unless it is there: in pieces, going on where it was
//     interrupted, also by the death of the agent, and verified by SHA-256 before anything
//     uses it. One is fetched at a time. How far it is stands in the heartbeat.
//   - The command is started in an empty working directory and a process group of its own.
//     What it says goes into the fleet's log of the task (`fleetbus logs`), and the agent's.
//   - It is asked as [backend] kinds are: execio, httpio, openpi. When that is ready, so is
//     the replica. One that does not get ready in time is stopped.
//   - A process that ends, or whose server dies or hangs, fails the replica with the
//     reason; the agent opens it again with growing pauses.
//   - To stop, the group gets SIGTERM, and SIGKILL when its time is over. When the agent is
//     killed, nothing of the group is left: see package proc.
//
// # The disk
//
// Artifacts are kept in a directory, under their digests. When more of them are there than
// Options.Cache allows, or the disk is full, those go that no task placed here needs, the
// longest not used first. What tasks need is never removed; where that leaves no room the
// replica fails and says so. Whatever is found changed is read, and fetched again if it is
// not what it was.
//
// # The command's surroundings
//
// It finds FLEETBUS_REPLICA, FLEETBUS_TASK, FLEETBUS_CLASS, FLEETBUS_AGENT, FLEETBUS_SLOTS, FLEETBUS_MAX_BATCH,
// FLEETBUS_ARTIFACT and FLEETBUS_PORT in its environment, beside the agent's. Variables of
// the agent that begin with FLEETBUS_ or NATS_ are not passed on: they may be its credentials.
package deploy
