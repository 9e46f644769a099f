package deploy

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fleetbus/fleetbus/internal/bodyfile"
)

// The working directories of replicas are in workDir; oldPrefix begins the names of those of
// an agent that was killed, which are on their way out.
const (
	workDir   = "work"
	oldPrefix = "work-old-"
)

// sweep takes away what an agent has left that was killed: a command may have unpacked all
// of its artifact there, and its task may never come back. It is called before anything is
// opened, and moves the directory aside; removing it may take long, and Close waits for it.
func (d *Deployer) sweep() {
	now, cancel := context.WithCancel(context.Background())
	cancel() // it does not wait
	mine, err := bodyfile.Open(now, filepath.Join(d.o.Dir, ours), func() {})
	if err != nil {
		return // another process has the directory, and may be using it; or nothing can be written there, which Open says
	}
	defer mine.Close()
	work := filepath.Join(d.o.Dir, workDir)
	if _, err := os.Stat(work); err == nil {
		aside, err := os.MkdirTemp(d.o.Dir, oldPrefix+"*")
		if err == nil {
			err = os.Rename(work, filepath.Join(aside, workDir))
		}
		if err != nil {
			d.o.Logger.Warn("what an agent has left that was killed cannot be removed", "directory", work, "error", err)
			return
		}
	}
	old, _ := filepath.Glob(filepath.Join(d.o.Dir, oldPrefix+"*")) // the pattern is a good one
	if len(old) == 0 {
		return
	}
	d.sweeping.Go(func() {
		for _, dir := range old {
			if err := removeAll(dir); err != nil {
				d.o.Logger.Warn("what an agent has left that was killed cannot be removed", "directory", dir, "error", err)
			}
		}
	})
}

// removeAll removes a directory of ours with everything in it, also where an archive has
// brought directories that may not be written to.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return nil
	}) // what it could not do the next line says
	return os.RemoveAll(dir)
}
