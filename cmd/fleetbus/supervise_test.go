package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func until(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestSupervise(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		ctx  context.Context
		run  func(context.Context) error
		want string // "" for no error
	}{
		{"asked to stop", canceled, until, ""},
		{"fails", context.Background(), func(context.Context) error { return broken }, "the router failed and the rest was stopped: broken"},
		{"ends by itself", context.Background(), func(context.Context) error { return nil }, "the router ended by itself"},
		{"fails while it stops", canceled, func(ctx context.Context) error { <-ctx.Done(); return broken }, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := supervise(c.ctx, part{"coordinator", until}, part{"router", c.run})
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
