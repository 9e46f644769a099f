// Package openpi serves tasks with a policy server that speaks openpi's WebSocket wire (see
// internal/openpiwire), as it is. Somebody else starts it; [New] makes the handler that
// asks it.
//
// # Connections
//
// A connection is one observation at a time, because the protocol takes turns. So there is
// one for each slot of the replica that is in use, opened when it is needed and kept. Bytes
// pass as they are, in both directions.
//
// The protocol cannot cancel. An observation whose time is over, or that its caller gave
// up, keeps its connection and its slot until the server has answered it: the next one is
// not put behind it. A server that does not answer for Options.HangTimeout after that hangs,
// and counts as dead. While all slots are kept so, requests end at once as backend_failed,
// and go elsewhere.
//
// With Options.Sessions every key of a request has a connection of its own, as a policy
// needs that keeps its state with the connection.
//
// # When it is ready
//
// The replica loads until the server has accepted a connection and sent its metadata, and,
// where Options.Warmup is given, has answered that observation: the stock server compiles
// its model with the first one, which can take minutes. A server that refuses connections
// has died; so has one that is silent for HangTimeout while nothing is connected.
//
// # What goes wrong
//
//	a traceback (text message)     backend_failed, with its last line
//	the connection ends            backend_failed, and where in the answer
//	something that is no message   backend_failed, with what was found
//	a message nobody asked for     that connection is closed; the next request has another
//	an answer over MaxBody         payload_too_large, with the sizes
package openpi
