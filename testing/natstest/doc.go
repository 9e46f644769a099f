// Package natstest gives tests a real NATS server with JetStream, in their own
// process, in one line:
//
//	func TestMine(t *testing.T) {
//		s := natstest.Start(t)
//		nc := s.Connect(t)
//		…
//	}
//
// There is nothing to install and nothing to clean up: server, connections and files
// end with the test, and no goroutine is left over. Tests may run in parallel, each with a server
// of its own; one is ready in about 25 ms.
//
// # Servers that stop, and come back
//
// [Server.Restart] keeps the port and the directory, so that clients reconnect by
// themselves, streams in files are there again, and streams in memory are not. That is
// a server's graceful end; for a crash, run a server in a process of its own and kill
// it. [StartCluster] starts several servers that replicate streams.
//
// # Links that are cut
//
// [Server.Link] names a network path. A connection made with its [Link.Dial] can lose
// the network, and nothing else of the test does:
//
//	wifi := s.Link("robot-1")
//	nc := s.Connect(t, wifi.Dial())
//	wifi.Cut()   // out of reach: bytes wait, nobody is told
//	wifi.Mend()  // back again
//	wifi.Break() // closed at both ends, as by a rebooting access point
//
// The client notices a cut by the pings that are not answered: [Server.Connect] sets
// one every 2 s and gives up after the third, at 4 to 6 s, as all fleetbus programs do. The
// server does the same at its end. Set nats.PingInterval to have it sooner, or do it in
// virtual time.
//
// # Virtual time
//
// [Bubble] runs a test, its server and its clients in virtual time (testing/synctest):
// the clock jumps ahead when every goroutine waits. An expiry after ten minutes takes
// milliseconds, and how busy the machine is makes no difference. The rules:
//
//   - Put virtual-time tests into a test binary of their own, that is into a package
//     directory without other NATS tests. Timers that nats.go keeps for later use must not
//     cross into or out of a bubble; Bubble empties the pools before and after, but
//     cannot do so for tests that run at the same time.
//   - No t.Parallel.
//   - Everything of the test is made within f: server, connections, channels.
//   - [Start] is always in process there. Real network input and output, and child
//     processes, do not count as waiting: the clock would stand still.
//   - Everything must end when f does: cancel what you started and wait for it. What was made
//     with a testing.TB here ends by itself.
//   - Never wait for virtual time to pass while holding a mutex that another goroutine
//     wants: waiting for a mutex does not count as waiting, and the clock stops.
package natstest
