package embed

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// lockName is the file in the storage directory on which the running server holds a
// lock of the operating system, which ends with the process however it ends. The file
// stays; it names the last holder. JetStream's files are in a directory beside it.
const lockName = "fleetbus.lock"

// errLocked is what tryLock returns when another open file holds the lock.
var errLocked = errors.New("locked")

type dirLock struct{ file *os.File }

// lockDir makes a storage directory where it is missing, and locks it.
func lockDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, storeError(dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, storeError(dir, err)
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if errors.Is(err, errLocked) {
			return nil, messages.Errorf(messages.CodeConflict, "use %s as storage directory: %s uses it; stop that one, or name another directory", dir, holder(f))
		}
		return nil, storeError(dir, err)
	}
	// Who holds it is a hint for people; the lock does not depend on it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dirLock{f}, nil
}

// holder names the process that wrote the lock file.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(text)); err == nil && pid != "" {
		return "the server of process " + pid
	}
	return "another server"
}

// release unlocks the directory; closing the file does.
func (l *dirLock) release() { _ = l.file.Close() }
