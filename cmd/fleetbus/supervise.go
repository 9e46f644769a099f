package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"golang.org/x/sync/errgroup"
)

// part is one of several things that live and die together in a process.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// supervise runs all parts until ctx ends or one of them fails; then it stops the others,
// waits for them, and says which it was. A part that ends without being asked has failed
// too: half of a process must not look like a whole one.
func supervise(ctx context.Context, parts ...part) error {
	group, inner := errgroup.WithContext(ctx)
	for _, p := range parts {
		group.Go(func() error {
			err := p.run(inner)
			switch {
			case err != nil && inner.Err() != nil && errors.Is(err, context.Canceled):
				return nil // it was asked to stop, and stopped
			case err != nil:
				return fmt.Errorf("the %s failed and the rest was stopped: %w", p.name, err)
			case inner.Err() == nil:
				return messages.Errorf(messages.CodeInternal, "the %s ended by itself and the rest was stopped; its log says more", p.name)
			}
			return nil
		})
	}
	return group.Wait()
}

// again runs what is to run unattended until ctx ends. Where it failed because the server
// or JetStream was not there (yet), it is run again, as long as it takes: whoever mends
// the server must not have to restart every agent. Any other error is final.
func again(ctx context.Context, log *slog.Logger, name string, run func(ctx context.Context) error) error {
	// run has its own retries, of seconds; five more between them is what an operator
	// who has mended something will wait.
	const pause = 5 * time.Second
	for {
		err := run(ctx)
		switch {
		case ctx.Err() != nil && (errors.Is(err, context.Canceled) || messages.CodeOf(err) == messages.CodeCanceled):
			return nil // it was asked to stop, and stopped
		case messages.CodeOf(err) == messages.CodeBadRequest:
			return usageError{err} // the parts check their configuration, which came from flags
		case messages.CodeOf(err) != messages.CodeUnavailable:
			return err
		}
		log.Warn(name+" failed: "+oneLine(err), "next_attempt_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// stopped is err, or nil where ctx ended first: what fails in the preparations of a
// program that was told to stop has failed because of that.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
