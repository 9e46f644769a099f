package natstest_test

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// shout is the code under test: a handler that answers with its input in capitals.
func shout(m *nats.Msg) { _ = m.Respond(bytes.ToUpper(m.Data)) }

// A test that starts a server, serves a handler and asks it. In a test of yours, t is
// its *testing.T.
func Example() {
	t := newT()
	defer t.finish()

	s := natstest.Start(t) // ready when this returns, gone when the test ends
	robot, client := s.Connect(t), s.Connect(t)

	if _, err := robot.Subscribe("shout", shout); err != nil {
		t.Fatal(err)
	}
	if err := robot.Flush(); err != nil { // the server knows of the subscription
		t.Fatal(err)
	}
	reply, err := client.Request("shout", []byte("hello"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(reply.Data))
	// Output: HELLO
}

// A robot whose Wi-Fi goes away is soon known to be gone, and is back by itself.
func ExampleLink() {
	t := newT()
	defer t.finish()

	s := natstest.Start(t)
	wifi := s.Link("robot-1")
	back := make(chan struct{})
	robot := s.Connect(t, wifi.Dial(), nats.ReconnectHandler(func(*nats.Conn) { close(back) }))
	if _, err := robot.Subscribe("shout", shout); err != nil {
		t.Fatal(err)
	}
	if err := robot.Flush(); err != nil {
		t.Fatal(err)
	}
	client := s.Connect(t)

	wifi.Break()
	natstest.Eventually(t, 10*time.Second, "the server to know that nobody answers", func() bool {
		_, err := client.Request("shout", []byte("hello"), 50*time.Millisecond)
		return errors.Is(err, nats.ErrNoResponders)
	})
	fmt.Println("gone")

	wifi.Mend()
	<-back
	if err := robot.Flush(); err != nil { // the server knows of the subscription again
		t.Fatal(err)
	}
	reply, err := client.Request("shout", []byte("hello again"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(reply.Data))
	// Output:
	// gone
	// HELLO AGAIN
}
