package embed

import (
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
)

// MetaLeader reports whether this server leads its cluster, and how many servers it
// sees with JetStream, itself included. Only the leader knows the number; a server
// outside of a cluster leads none.
func (s *Server) MetaLeader() (peers int, leader bool) {
	ns := s.server()
	// Outside of a cluster the server says that it leads, and has no peers to count.
	if ns == nil || s.opts.Cluster.Name == "" || !ns.JetStreamIsLeader() {
		return 0, false
	}
	return len(ns.JetStreamClusterPeers()), true
}

// LeadsStream reports whether this server leads a stream of the default account.
// Outside of a cluster nobody does.
func (s *Server) LeadsStream(name string) bool {
	ns := s.server()
	return ns != nil && ns.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, name)
}

// HoldAccessClock keeps the process-wide clock of the server's file stores running
// until release is called. Tests in virtual time call it outside of their bubble:
// the clock's goroutine would otherwise start inside, and its channel, which was made
// when the program started, would keep virtual time from moving on.
func HoldAccessClock() (release func()) {
	ats.Register()
	return ats.Unregister
}
