package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/testing/policy"
	"github.com/rogpeppe/go-internal/testscript"
)

// What scripts ask gateways with. All are bounded by this.
const doorPatience = 20 * time.Second

// fetch asks a web server until it answers with a status: `fetch 200 GET URL`, `fetch 200
// POST URL BODY [HEADER:VALUE]…`. A door hears of new routes a moment after who made them.
// The page is in the file page.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fetch STATUS METHOD URL [BODY [HEADER:VALUE]…]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), doorPatience)
	defer cancel()
	for {
		status, page, err := fetchOnce(ctx, args[1], args[2], args[3:])
		ts.Check(err)
		if fmt.Sprint(status) == args[0] {
			ts.Check(os.WriteFile(ts.MkAbs("page"), page, 0o600))
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			ts.Fatalf("status %d, want %s: %s", status, args[0], page)
		}
	}
}

func fetchOnce(ctx context.Context, method, url string, rest []string) (int, []byte, error) {
	body, headers := "", []string(nil)
	if len(rest) > 0 {
		body, headers = rest[0], rest[1:]
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Set(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	return resp.StatusCode, page, err
}

// policyServer runs a policy server until the script ends; $POLICY is its URL.
func policyServer(ts *testscript.TestScript, neg bool, args []string) {
	s := &policy.Server{Metadata: policy.Metadata(), Infer: func(_ context.Context, o []byte) ([]byte, error) { return policy.Answer(policy.IDOf(o)), nil }}
	url, stop := policy.Serve(s)
	ts.Defer(stop)
	ts.Setenv("POLICY", url)
}

// observe is a policy client that sends an observation: `observe ADDRESS [KEY]`.
func observe(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: observe HOST:PORT [KEY]")
	}
	key := ""
	if len(args) > 1 {
		key = args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), doorPatience)
	defer cancel()
	err := func() error {
		c, err := policy.Connect(ctx, "ws://"+args[0], key)
		if err != nil {
			return err
		}
		defer c.CloseNow()
		if !bytes.Equal(c.Metadata, policy.Metadata()) {
			return fmt.Errorf("metadata % x", c.Metadata)
		}
		for id := range uint64(5) {
			answer, err := c.Infer(ctx, policy.Observation(224, id))
			if err != nil {
				return err
			}
			if policy.AnswerTo(answer) != id {
				return fmt.Errorf("the answer to %d is to %d", id, policy.AnswerTo(answer))
			}
		}
		return nil
	}()
	if (err != nil) != neg {
		ts.Fatalf("%v", err)
	}
}

// address waits for a file that --port-file names and puts what is in it into a variable:
// `address DOOR file`.
func address(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: address VARIABLE FILE")
	}
	for deadline := time.Now().Add(doorPatience); time.Now().Before(deadline); {
		if text, err := os.ReadFile(ts.MkAbs(args[1])); err == nil && len(text) > 0 {
			ts.Setenv(args[0], strings.TrimSpace(string(text)))
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	ts.Fatalf("%s: nothing was written there", args[1])
}
