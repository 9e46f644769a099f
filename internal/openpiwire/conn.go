package openpiwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coder/websocket"
)

// What both sides of the wire know.
const (
	DefaultPort = "8000"
	HealthPath  = "/healthz"
	HealthBody  = "OK\n"
	PingEvery   = 20 * time.Second // as both stock sides do
)

// dialTime bounds the connection itself; how long the handshake may take is the caller's:
// a server that computes does not answer it.
const dialTime = 2 * time.Second

// maxDrain bounds how much of a message that is too large is read to tell its size, bytes.
const maxDrain = 64 << 20

// Traceback is the error of a text message: the policy has raised an exception.
type Traceback struct{ Text string }

func (t *Traceback) Error() string { return "the policy raised an exception: " + LastLine(t.Text) }

// TooLarge is the error of a message that has more bytes than the connection takes.
type TooLarge struct {
	Size  int64 // found
	Limit int
	Over  bool // Size is what was read when it was given up
}

func (t *TooLarge) Error() string {
	more := ""
	if t.Over {
		more = "more than "
	}
	return fmt.Sprintf("a message of %s%d bytes, allowed are %d", more, t.Size, t.Limit)
}

// ErrCut is wrapped by the error of a connection that ended inside a message.
var ErrCut = errors.New("the connection was closed inside a message")

// Conn is one side of a connection. One goroutine reads; Write and Fail may be called by
// others.
type Conn struct {
	ws    *websocket.Conn
	limit int
	hint  int
	cork  *cork // nil: messages are written as they are
}

// Dial connects to a server; url is ws:// or wss://. authorization is the value of the
// header of that name, "" for none. The handshake ends with ctx.
func Dial(ctx context.Context, url, authorization string, limit int) (*Conn, error) {
	var c cork
	transport := &http.Transport{
		// One connection, which is the WebSocket's; no proxy stands before a machine of the fleet.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			c.Conn = conn
			return &c, nil
		},
		TLSHandshakeTimeout: dialTime,
	}
	header := http.Header{}
	if authorization != "" {
		header.Set("Authorization", authorization)
	}
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{ //nolint:bodyclose // the library has closed it, or it is the connection
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader: header, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		transport.CloseIdleConnections()
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, fmt.Errorf("the server answered %s and not with a WebSocket%s", resp.Status, page(resp))
		}
		return nil, plain(err)
	}
	ws.SetReadLimit(-1)
	return &Conn{ws: ws, limit: limit, cork: &c}, nil
}

// Accept makes a request a connection. Where it cannot, it has answered.
func Accept(w http.ResponseWriter, r *http.Request, limit int) (*Conn, error) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, plain(err)
	}
	ws.SetReadLimit(-1)
	return &Conn{ws: ws, limit: limit}, nil
}

// Read reads the next binary message; the slice is the caller's. It also answers pings, so
// it must be called all the time. An error ends the connection: *Traceback, *TooLarge, one
// that wraps ErrCut, or what the other side said when it closed.
func (c *Conn) Read(ctx context.Context) ([]byte, error) {
	kind, r, err := c.ws.Reader(ctx)
	if err != nil {
		return nil, plain(err)
	}
	// Messages of one connection are about equally large, so one allocation is enough.
	buf := make([]byte, 0, c.hint)
	for {
		if len(buf) > c.limit {
			return nil, c.drain(r, int64(len(buf)))
		}
		if len(buf) == cap(buf) {
			var more [512]byte
			n, err := r.Read(more[:])
			buf = append(buf, more[:n]...)
			if err != nil {
				return c.read(kind, buf, err)
			}
			continue
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return c.read(kind, buf, err)
		}
	}
}

func (c *Conn) read(kind websocket.MessageType, buf []byte, err error) ([]byte, error) {
	switch {
	case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w, after %d bytes of it: %w", ErrCut, len(buf), plain(err))
	case len(buf) > c.limit:
		return nil, &TooLarge{Size: int64(len(buf)), Limit: c.limit}
	case kind == websocket.MessageText:
		return nil, &Traceback{Text: string(buf)}
	}
	c.hint = min(len(buf), c.limit)
	return buf, nil
}

// drain reads the rest of a message that is too large, so that the other side has written
// it and reads what it is told.
func (c *Conn) drain(r io.Reader, n int64) error {
	rest, err := io.Copy(io.Discard, io.LimitReader(r, maxDrain))
	if err != nil {
		return fmt.Errorf("%w, after %d bytes of it: %w", ErrCut, n+rest, plain(err))
	}
	return &TooLarge{Size: n + rest, Limit: c.limit, Over: rest == maxDrain}
}

// Write writes a binary message. The connection is closed where ctx ends before it is out.
func (c *Conn) Write(ctx context.Context, body []byte) error {
	if c.cork == nil {
		return plain(c.ws.Write(ctx, websocket.MessageBinary, body))
	}
	// A client's frames are masked, and the library does that in pieces of 4 kB: a large
	// observation would be 74 packets, and wake its reader as often.
	defer context.AfterFunc(ctx, c.CloseNow)()
	c.cork.in(len(body))
	err := c.ws.Write(context.WithoutCancel(ctx), websocket.MessageBinary, body)
	if out := c.cork.out(); err == nil {
		err = out
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return plain(err)
}

// Fail says as a server does that the policy has failed, and closes the connection.
func (c *Conn) Fail(ctx context.Context, traceback string) error {
	err := c.ws.Write(ctx, websocket.MessageText, []byte(traceback))
	// The stock server gives this reason, and whoever looks for it finds it.
	if cerr := c.ws.Close(websocket.StatusInternalError, "Internal server error. Traceback included in previous frame."); err == nil {
		err = cerr
	}
	return plain(err)
}

// Close says goodbye, and waits a moment for the other side's.
func (c *Conn) Close(status websocket.StatusCode, reason string) error {
	return plain(c.ws.Close(status, reason))
}

// CloseNow closes the connection without a word.
func (c *Conn) CloseNow() { _ = c.ws.CloseNow() } // an error says that it is closed already

// Ping waits for an answer to a ping; somebody must be reading.
func (c *Conn) Ping(ctx context.Context) error { return plain(c.ws.Ping(ctx)) }

// LastLine is the last line of a traceback, which says what went wrong: printable and
// short.
func LastLine(traceback string) string {
	line := strings.TrimSpace(traceback)
	line = strings.TrimSpace(line[strings.LastIndexByte(line, '\n')+1:])
	line = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return '.'
		}
		return c
	}, line)
	if r := []rune(line); len(r) > 300 {
		line = string(r[:300]) + "…"
	}
	if line == "" {
		return "it gave no reason"
	}
	return line
}

// page is the first line of what a server sent instead of a handshake.
func page(resp *http.Response) string {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // what there is of it helps
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if first == "" {
		return ""
	}
	return ": " + LastLine(first)
}

// plain takes the library's own words off an error, and names the end of a connection.
func plain(err error) error {
	var closed websocket.CloseError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &closed):
		if closed.Reason == "" {
			return fmt.Errorf("the other side closed with status %d: %w", int(closed.Code), closed)
		}
		return fmt.Errorf("the other side closed with status %d, %s: %w", int(closed.Code), LastLine(closed.Reason), closed)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed without a word")
	}
	var inner error = err
	for {
		var op *net.OpError
		if errors.As(inner, &op) {
			return op
		}
		next := errors.Unwrap(inner)
		if next == nil {
			return inner
		}
		inner = next
	}
}

// Closed reports whether err says that the other side closed in good order: with status
// 1000 or 1001, as clients do that are done.
func Closed(err error) bool {
	var closed websocket.CloseError
	return errors.As(err, &closed) && (closed.Code == websocket.StatusNormalClosure || closed.Code == websocket.StatusGoingAway)
}

// maxKept bounds the memory that a connection keeps for its next message, bytes.
const maxKept = 1 << 20

// cork is a connection that keeps back what is written between in and out, and writes it
// with one call.
type cork struct {
	net.Conn
	mu  sync.Mutex
	on  bool
	buf []byte
}

func (c *cork) in(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = true
	if cap(c.buf) < n+16 {
		c.buf = make([]byte, 0, n+64)
	}
}

func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on {
		c.buf = append(c.buf, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cork) out() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
	_, err := c.Conn.Write(c.buf)
	if c.buf = c.buf[:0]; cap(c.buf) > maxKept {
		c.buf = nil
	}
	return err
}
