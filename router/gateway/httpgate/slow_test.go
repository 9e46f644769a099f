package httpgate

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/router/gateway"
	"github.com/fleetbus/fleetbus/testing/lab"
)

// post opens a connection and writes the head of a request.
func (d *door) post(t *testing.T, path string, length int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(lab.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: door\r\nContent-Length: %d\r\n\r\n", path, length); err != nil {
		t.Fatal(err)
	}
	return conn
}

// answer reads one.
func answer(t *testing.T, conn net.Conn) (status int, page string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// A client that writes all of its body before it looks, as many do, reads why it is refused.
func TestRefusedClientsReadWhy(t *testing.T) {
	l := lab.New(t)
	keys, err := gateway.ParseKeys([]byte("a-secret-key\n"))
	if err != nil {
		t.Fatal(err)
	}
	limit := 8<<20 - roomForHeaders
	large, small := bytes.Repeat([]byte("x"), 3*limit), bytes.Repeat([]byte("x"), 700_000)
	for name, c := range map[string]struct {
		path   string
		change func(*Config)
		body   []byte
		status int
		text   string
	}{
		"too large":     {"/v2/models/m/infer", nil, large, 413, fmt.Sprintf("the body has %d bytes, allowed are %d; raise max_payload", len(large), limit)},
		"no such model": {"/v2/models/m/infer", nil, small, 404, "task m"},
		"no such page":  {"/v3", nil, large, 404, "there is no /v3 here"},
		"wrong method":  {"/v2/models/m", nil, small, 405, "allowed is GET"},
		"no key":        {"/v2/models/m/infer", func(c *Config) { c.Keys = keys }, small, 401, "send a header Authorization"},
		"too often":     {"/v2/models/m/infer", func(c *Config) { c.Rate = 1e-9 }, small, 503, "requests a second"},
	} {
		d := open(t, l, c.change)
		if c.status == 503 {
			d.rate.Take(time.Now())
		}
		conn := d.post(t, c.path, len(c.body))
		if _, err := conn.Write(c.body); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if status, page := answer(t, conn); status != c.status || !strings.Contains(page, c.text) {
			t.Errorf("%s: %d %s", name, status, page)
		}
	}
	// One that asks before it sends is answered before it sends.
	d := open(t, l, nil)
	conn := d.post(t, "/v3\x20HTTP/1.1\r\nExpect: 100-continue\r\nX:", len(large))
	if status, _ := answer(t, conn); status != 404 {
		t.Errorf("asked first: %d", status)
	}
}

// Who sends or reads too slowly keeps no place from others.
func TestSlowClients(t *testing.T) {
	const transfer = 200 * time.Millisecond
	l := lab.New(t)
	task := model("echo")
	l.Agent("edge", task, agent.Func("echo", func(_ context.Context, r *agent.Request) ([]byte, error) {
		if string(r.Body) == "think" {
			<-time.After(3 * transfer)
			return r.Body, nil
		}
		return make([]byte, 8<<20-roomForHeaders), nil
	}))
	l.Place(task, "edge")
	d := open(t, l, func(c *Config) { c.MaxInFlight, c.transfer = 1, transfer })
	free := func(what string) {
		t.Helper()
		over := time.Now().Add(lab.Patience)
		for len(d.room) > 0 && time.Now().Before(over) {
			<-time.After(time.Millisecond)
		}
		if len(d.room) > 0 {
			t.Fatalf("%s: its place is still taken", what)
		}
	}
	conn := d.post(t, "/v2/models/echo/infer", 100)
	if _, err := conn.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if status, page := answer(t, conn); status != 400 || !strings.Contains(page, "the body took longer than 200ms") {
		t.Errorf("%d %s", status, page)
	}
	free("a slow body")

	deaf := d.post(t, "/v2/models/echo/infer", 0)
	if err := deaf.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	over := time.Now().Add(lab.Patience)
	for len(d.room) == 0 && time.Now().Before(over) {
		<-time.After(time.Millisecond)
	}
	free("a client that does not read")

	// The limit is that of sending: a model, and the next request on the connection, have all of theirs.
	for range 2 {
		if r := d.infer(t, "echo", "think"); r.status != 200 || string(r.body) != "think" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}
