// Command fleetbus is the whole of fleetbus in one binary: the server, the coordinator,
// the router and the agents, and what an operator needs to look at them. `fleetbus up`
// starts everything but the agents on one machine; `fleetbus help` lists the rest.
//
// Exit status: 0 it worked, 1 it failed (one line on standard error says what was tried,
// why it failed and what to do), 2 the command line or a configuration file is wrong.
// Answers go to standard output, everything else to standard error. With --json the
// answer is one object, or one object a line where it is a stream of events.
//
// One file holds one subcommand. They read flags and wire packages together; whatever
// they would have to decide is decided in those packages.
package main
