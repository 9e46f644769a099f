package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/internal/fleetfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/pflag"
)

// foreignEvery is how often the file of --foreign-use is read: as often as a heartbeat
// carries what it says.
const foreignEvery = time.Second

// foreignFields are the fields of that file.
var foreignFields = []string{"compute", "storage", "network"}

// foreignUse is what others than the agent's replicas use of its machine, as a file says
// that something else of the user's measures and writes. A file that cannot be read later
// changes nothing: what was said last holds, because room that is believed in and is not
// there costs more than room that is left free. use may be called from many goroutines,
// the rest from one.
type foreignUse struct {
	path  string
	log   *slog.Logger
	last  atomic.Pointer[messages.Resources] // nil: nothing was said yet
	wrong string                             // what was logged of the file, so that it is logged once
}

// use is what the file said last; nothing before it has said anything.
func (f *foreignUse) use() messages.Resources {
	if last := f.last.Load(); last != nil {
		return *last
	}
	return messages.Resources{}
}

// watchForeign reads the file, where one is named, until stop. One that is not there yet is
// no error, for what writes it may start later; one that is wrong is.
func watchForeign(ctx context.Context, path string, log *slog.Logger) (use func() messages.Resources, stop func(), err error) {
	if path == "" {
		return nil, func() {}, nil
	}
	f := &foreignUse{path: path, log: log}
	if err := f.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	// Until the agent is gone, not only until it is told to go: it beats while it drains.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	watching.Go(func() { f.run(ctx) })
	return f.use, func() {
		cancel()
		watching.Wait()
	}, nil
}

// run reads the file again and again until ctx ends.
func (f *foreignUse) run(ctx context.Context) {
	tick := time.NewTicker(foreignEvery)
	defer tick.Stop()
	for {
		f.look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look reads the file once, and says what is wrong with it when that changes.
func (f *foreignUse) look() {
	err := f.read()
	switch {
	case err == nil && f.wrong != "":
		f.wrong = ""
		f.log.Info("what others use is known again", "compute", f.use().Compute, "storage", f.use().Storage, "network", f.use().Network)
	case err != nil && f.wrong != oneLine(err):
		f.wrong = oneLine(err)
		f.log.Warn("what others use of this machine is not known; what was known last holds", "reason", f.wrong,
			"compute", f.use().Compute, "storage", f.use().Storage, "network", f.use().Network)
	}
}

func (f *foreignUse) read() error {
	var r messages.Resources
	fields := pflag.NewFlagSet("", pflag.ContinueOnError)
	fields.Var(quantity(&r.Compute, fleetfile.Compute), "compute", "")
	fields.Var(quantity(&r.Storage, fleetfile.Storage), "storage", "")
	fields.Var(quantity(&r.Network, fleetfile.Network), "network", "")
	if err := loadFields("--foreign-use", f.path, foreignFields, fields); err != nil {
		return err
	}
	f.last.Store(&r)
	return nil
}
