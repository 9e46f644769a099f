package natstest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"
)

// Ports come from below the range that operating systems give to outgoing connections
// (from 32768 on, on Linux): from within it, any program could take the port of a
// server in the moment between its stop and its restart.
const (
	firstPort = 10_000
	lastPort  = 32_000
)

// portTries bounds the search. A test machine has at most a few hundred of these ports
// in use.
const portTries = 1_000

// freePorts returns n different ports of the loopback interface on which nobody
// listens right now.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		held = append(held, l)
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	t.Fatalf("natstest: found %d of %d free ports between %d and %d on 127.0.0.1", len(ports), n, firstPort, lastPort)
	return nil
}

// dialTimeout bounds a connection to a server on this machine, which comes about in
// under a millisecond or not at all.
const dialTimeout = 5 * time.Second

func dialTCP(network, address string) (net.Conn, error) {
	return net.DialTimeout(network, address, dialTimeout)
}
