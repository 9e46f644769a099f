// Package openpi is the front door for openpi's policy clients: they connect to it as to
// their policy server, unchanged, and are answered by whatever agent serves the task.
//
// The stock client never connects again and has no timeout, so the door keeps its
// connection open whatever happens behind it:
//
//   - The metadata come from a ready replica, and wait for the first one. They are asked for
//     with an inference of content type messages.MetadataType; of a handler that has none
//     (a Go function, a child process) they are an empty map.
//   - An observation is asked as an inference, with all of its failover, as long as
//     Config.Deadline allows: while agents die, nobody is ready, or all are busy, it is tried
//     again. Bytes pass as they are.
//   - When nothing is left the client gets the protocol's own error: a traceback, whose last
//     line has the code and the message, and the close with status 1011.
//
// The client takes turns, so its observations never replace one another: they have no key,
// unless they belong to a session.
//
// # Sessions
//
// For a policy that keeps state, Config.Sticky sends all observations of a connection to
// the same agent, straight, and gives them a key of their own, which a backend with sessions
// turns into a connection of its own. With StickyPrefer a session moves when its agent can
// serve no more, and its state is lost; with StickyOnly it ends.
package openpi
