// Package history writes down what clients asked and were told, and what executors
// did, and judges the two against each other.
//
// A [Writer] appends one JSON line per record with one write call, so that what a
// process wrote before SIGKILL stands in its file. [Check] knows nothing of routers
// and agents: it sees only what the users on both ends saw, and says what was lost,
// done twice, changed on the way, or done although its caller was told that it was
// not.
//
// Times are the wall clock of one host and are used for display only.
package history
