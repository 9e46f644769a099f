package vtime_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/testing/natstest"
	"github.com/nats-io/nats.go"
)

// skewed is Link.Dial for a machine whose clock differs from the server's: every time that
// the server tells it is off by so much. That is all by which the two clocks could meet.
func skewed(l *natstest.Link, by time.Duration) nats.Option {
	return func(o *nats.Options) error {
		if err := l.Dial()(o); err != nil {
			return err
		}
		o.InProcessServer = skewDialer{o.InProcessServer, by}
		return nil
	}
}

type skewDialer struct {
	inner nats.InProcessConnProvider
	by    time.Duration
}

func (d skewDialer) InProcessConn() (net.Conn, error) {
	c, err := d.inner.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &skewConn{Conn: c, in: bufio.NewReader(c), by: d.by}, nil
}

// skewConn changes the times in what the server sends, message by message. Their length
// stays, so that nothing else changes.
type skewConn struct {
	net.Conn
	in  *bufio.Reader
	out []byte
	by  time.Duration
}

func (c *skewConn) Read(p []byte) (int, error) {
	if len(c.out) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// serverTime is what JetStream says in an answer of its API.
var serverTime = regexp.MustCompile(`"ts":"([^"]+)"`)

// next reads one line of the protocol, with its payload.
func (c *skewConn) next() error {
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 || fields[0] != "MSG" && fields[0] != "HMSG" {
		c.out = line
		return nil
	}
	n, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return err
	}
	payload := make([]byte, n+2)
	if _, err := io.ReadFull(c.in, payload); err != nil {
		return err
	}
	for i, f := range fields {
		if strings.HasPrefix(f, "$JS.ACK.") {
			fields[i] = c.skewAck(f)
		}
	}
	payload = serverTime.ReplaceAllFunc(payload, func(found []byte) []byte {
		text := string(serverTime.FindSubmatch(found)[1])
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return found
		}
		// The fraction is kept as it is written: the shift is whole seconds.
		shifted := at.Add(c.by).Format("2006-01-02T15:04:05")
		return bytes.Replace(found, []byte(text[:len(shifted)]), []byte(shifted), 1)
	})
	c.out = append([]byte(strings.Join(fields, " ")+"\r\n"), payload...)
	return nil
}

// skewAck changes when a message was stored, in the reply subject of a delivery.
func (c *skewConn) skewAck(subject string) string {
	tokens := strings.Split(subject, ".")
	i := len(tokens) - 2 // $JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<seq>.<time>.<pending>
	if len(tokens) > 9 {
		i = 9 // with a domain and an account before, and a random token behind
	}
	if at, err := strconv.ParseInt(tokens[i], 10, 64); err == nil {
		tokens[i] = strconv.FormatInt(at+int64(c.by), 10)
	}
	return strings.Join(tokens, ".")
}
