package openpiwire

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a client whose server does as serve says.
func pair(t *testing.T, limit int, serve func(ctx context.Context, c *Conn)) *Conn {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r, limit)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		serve(context.WithoutCancel(r.Context()), c)
	}))
	t.Cleanup(s.Close)
	c, err := Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http"), "", limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseNow)
	return c
}

func echo(ctx context.Context, c *Conn) {
	for {
		b, err := c.Read(ctx)
		if err != nil || c.Write(ctx, b) != nil {
			return
		}
	}
}

// Whatever the sizes of messages before, the next one comes whole.
func TestBytes(t *testing.T) {
	const limit = 1 << 20
	c := pair(t, limit, echo)
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 301_436, 301_436, 3, limit, 301_437, 0, limit - 1} {
		body := make([]byte, n)
		for i := range body {
			body[i] = byte(dice.Uint32())
		}
		sent := bytes.Clone(body)
		if err := c.Write(t.Context(), body); err != nil {
			t.Fatal(err)
		}
		got, err := c.Read(t.Context())
		if err != nil || !bytes.Equal(got, sent) || !bytes.Equal(body, sent) {
			t.Fatalf("seed %d: %d bytes came back as %d, %v", seed, n, len(got), err)
		}
	}
}

// One that is too large is read to its end, so that its sender can be told its size.
func TestTooLarge(t *testing.T) {
	const limit = 1000
	said := make(chan error, 1)
	c := pair(t, limit, func(ctx context.Context, c *Conn) {
		_, err := c.Read(ctx)
		said <- err
		_ = c.Fail(ctx, err.Error())
	})
	if err := c.Write(t.Context(), make([]byte, 500_000)); err != nil {
		t.Fatal(err)
	}
	var large *TooLarge
	if err := <-said; !errors.As(err, &large) || large.Size != 500_000 || large.Limit != limit || large.Over {
		t.Errorf("%v", err)
	}
	_, err := c.Read(t.Context())
	var traceback *Traceback
	if !errors.As(err, &traceback) || !strings.HasSuffix(err.Error(), "a message of 500000 bytes, allowed are 1000") {
		t.Errorf("%v", err)
	}
	exactly := pair(t, limit, echo)
	for n, ok := range map[int]bool{limit: true, limit + 1: false} {
		if err := exactly.Write(t.Context(), make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if _, err := exactly.Read(t.Context()); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
		if !ok {
			return
		}
	}
}

// After a traceback comes the close of the stock server.
func TestFail(t *testing.T) {
	c := pair(t, 1000, func(ctx context.Context, c *Conn) { _ = c.Fail(ctx, "Traceback …\nKeyError: 'prompt'\n") })
	_, err := c.Read(t.Context())
	var traceback *Traceback
	if !errors.As(err, &traceback) || traceback.Text != "Traceback …\nKeyError: 'prompt'\n" || err.Error() != "the policy raised an exception: KeyError: 'prompt'" {
		t.Errorf("%v", err)
	}
	_, err = c.Read(t.Context())
	if err == nil || !strings.Contains(err.Error(), "status 1011, Internal server error. Traceback included in previous frame.") || Closed(err) {
		t.Errorf("%v", err)
	}
}

func TestClosed(t *testing.T) {
	c := pair(t, 1000, func(_ context.Context, c *Conn) { _ = c.Close(1000, "") })
	if _, err := c.Read(t.Context()); !Closed(err) || !strings.Contains(err.Error(), "closed with status 1000") {
		t.Error(err)
	}
	c = pair(t, 1000, func(_ context.Context, c *Conn) { c.CloseNow() })
	if _, err := c.Read(t.Context()); err == nil || Closed(err) || err.Error() != "the connection was closed without a word" {
		t.Error(err)
	}
}

// A write that nobody reads ends with its context, and the connection with it.
func TestWriteEndsWithItsContext(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	c := pair(t, 64<<20, func(context.Context, *Conn) { <-over })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Write(ctx, make([]byte, 64<<20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := c.Write(t.Context(), []byte("x")); err == nil {
		t.Error("half a message was written, and then another one")
	}
}

// Pings are answered by whoever reads.
func TestPing(t *testing.T) {
	c := pair(t, 1000, echo)
	go func() {
		for {
			if _, err := c.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "it gave no reason",
		" \n \n":                 "it gave no reason",
		"one":                    "one",
		"a\nb\n\n":               "b",
		"a\x00\xff":              "a..",
		strings.Repeat("ä", 301): strings.Repeat("ä", 300) + "…",
	} {
		if got := LastLine(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
